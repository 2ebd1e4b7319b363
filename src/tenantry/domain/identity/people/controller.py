"""Routes of people's coming and going, and of what is known of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Body, FromPath
from litestar.response import Stream
from litestar.status_codes import HTTP_200_OK, HTTP_204_NO_CONTENT

from tenantry.domain.identity.people.copies import copy_pieces, find_person
from tenantry.domain.identity.people.schemas import (
    OwnErasurePayload,
    PersonalDataCopy,
    UserDeactivatePayload,
    UserErasePayload,
)
from tenantry.domain.identity.people.service import PeopleService, check_typed, provide_people
from tenantry.domain.identity.sessions.confirmation import PasswordCheck
from tenantry.domain.identity.users.authority import require_may_change
from tenantry.domain.identity.users.controller import read_user
from tenantry.domain.identity.users.models import User
from tenantry.domain.identity.users.schemas import UserRead
from tenantry.events.record import record_event
from tenantry.kernel.errors import NotAuthenticatedException, PermissionDeniedException
from tenantry.kernel.personal import current_personal
from tenantry.kernel.service import Injected
from tenantry.tenancy.database import Database
from tenantry.tenancy.guards import principal_of, requires_permission, requires_person
from tenantry.tenancy.request import request_transaction, tenant_request

__all__ = ("OwnDataController", "PeopleController")


class PeopleController(Controller):
    """Shutting people out, letting them in again, erasing them."""

    path = "/users/{user_id:uuid}"
    tags = ["users"]
    dependencies = {"people": provide_people}

    @post(
        "/deactivate",
        operation_id="DeactivateUser",
        summary="Deactivate a user",
        status_code=HTTP_200_OK,
        guards=[requires_permission("users:write")],
    )
    async def deactivate(
        self,
        request: Request[Any, Any, Any],
        people: Injected[PeopleService],
        user_id: FromPath[UUID],
        data: Annotated[UserDeactivatePayload | None, Body()] = None,
    ) -> UserRead:
        """Shut a user out: their sessions, streams and API keys end at once, and stay so. What they have made stays.

        Refused for the last active owner of the organization, and for the only owner of a team unless there is somebody
        to hand it to.
        """
        successor_id = data.successor_id if data is not None else None
        await _require_may(request, people, user_id, successor_id)
        return read_user(await people.deactivate(user_id, successor_id=successor_id))

    @post(
        "/reactivate",
        operation_id="ReactivateUser",
        summary="Reactivate a user",
        status_code=HTTP_200_OK,
        guards=[requires_permission("users:write")],
    )
    async def reactivate(
        self, request: Request[Any, Any, Any], people: Injected[PeopleService], user_id: FromPath[UUID]
    ) -> UserRead:
        """Let a user in again, with the roles and teams that they had. They log in anew, and make new API keys."""
        await _require_may(request, people, user_id, None)
        return read_user(await people.reactivate(user_id))

    @post(
        "/erase",
        operation_id="EraseUser",
        summary="Erase a user",
        status_code=HTTP_204_NO_CONTENT,
        # For good, and so nothing that a key lying about should be able to do.
        guards=[requires_permission("users:erase"), requires_person],
    )
    async def erase(
        self,
        request: Request[Any, Any, Any],
        people: Injected[PeopleService],
        user_id: FromPath[UUID],
        data: Annotated[UserErasePayload, Body()],
    ) -> None:
        """Delete an account with everything that is its person's: there is no way back.

        The audit trail keeps what has happened, by ids that lead nowhere any more. The address may be used anew.
        Refused as deactivating is.
        """
        user = await _require_may(request, people, user_id, data.successor_id)
        if user_id == principal_of(request).id:
            raise PermissionDeniedException("You erase yourself with your password: POST /api/users/me/erase.")
        check_typed(user, data.email)
        await people.erase(user_id, successor_id=data.successor_id)


class OwnDataController(Controller):
    """What people do about what is known of them."""

    path = "/users/me"
    tags = ["users"]

    @post(
        "/erase",
        operation_id="EraseMe",
        summary="Erase myself",
        status_code=HTTP_204_NO_CONTENT,
        opt={"any_user": True},
        dependencies={"people": provide_people},
    )
    async def erase_me(
        self,
        request: Request[Any, Any, Any],
        people: Injected[PeopleService],
        data: Annotated[OwnErasurePayload, Body()],
    ) -> None:
        """Delete the caller's account with everything that is theirs: there is no way back.

        Refused for the last active owner of the organization, and for the only owner of a team unless there is somebody
        to hand it to.
        """
        user_id, tenant = principal_of(request).id, tenant_request(request).tenant
        if tenant is None:
            raise NotAuthenticatedException
        await people.require_password(user_id)
        # No connection is held while the password is hashed.
        transaction = request_transaction(request)
        await transaction.pause()
        check: PasswordCheck = request.app.state.password_check
        stored = await check.require(tenant, user_id, data.password, field="password")
        people = await provide_people(db_session=await transaction.session())
        await people.erase(user_id, successor_id=data.successor_id, hashed_password=stored)

    @post(
        "/export",
        operation_id="ExportMe",
        summary="Copy my data",
        status_code=HTTP_200_OK,
        media_type="application/json",
        opt={"any_user": True, "transfer": True},
        responses={
            HTTP_200_OK: ResponseSpec(
                PersonalDataCopy, generate_examples=False, description="A file with everything, as JSON."
            )
        },
    )
    async def export_me(self, request: Request[Any, Any, Any]) -> Stream:
        """Everything that the organization keeps of the caller, without secrets, as one file of JSON.

        That it was taken is in the audit trail.
        """
        user_id, tenant = principal_of(request).id, tenant_request(request).tenant
        if tenant is None:
            raise NotAuthenticatedException
        # Whoever reads may be slow: a connection is taken for each piece, and for none while it is sent.
        await request_transaction(request).pause()
        database: Database = request.app.state.database
        async with database.transaction(tenant.write_scope) as transaction:
            person = await find_person(transaction.session, user_id)
            await record_event(transaction.session, "user.data_copied", subject=user_id)
        pieces = copy_pieces(database, tenant, person, current_personal())
        # Before the answer begins, so that a database that is away is still an error answer.
        first = await anext(pieces)
        return Stream(
            _after(first, pieces),
            media_type="application/json",
            headers={
                "Content-Disposition": f'attachment; filename="{tenant.slug}-{user_id}.json"',
                "Cache-Control": "no-store",
            },
        )


async def _require_may(
    request: Request[Any, Any, Any], people: PeopleService, user_id: UUID, successor_id: UUID | None
) -> User:
    """The user, if the caller may do it to them, and may give away what they own."""
    principal = principal_of(request)
    user = await people.get(user_id)
    await require_may_change(principal, user, people.repository.session, request.app.state.permissions)
    if successor_id is not None and "teams:manage" not in principal.permissions:
        # Whoever only adds people would otherwise come by every team, one owner after the other.
        raise PermissionDeniedException("Handing teams over takes 'teams:manage'.", permission="teams:manage")
    return user


async def _after(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in pieces:
        yield piece
