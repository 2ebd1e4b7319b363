"""Routes of changes of address."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Controller, Request, delete, get, post
from litestar.params import Body
from litestar.status_codes import HTTP_200_OK, HTTP_202_ACCEPTED, HTTP_204_NO_CONTENT
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.identity.address_changes.models import EmailChange
from tenantry.domain.identity.address_changes.schemas import (
    EmailChangeConfirm,
    EmailChangeConfirmed,
    EmailChangeCreate,
    EmailChangeRead,
    EmailChangeState,
)
from tenantry.domain.identity.address_changes.service import EmailChanges, drop_pending, pending_change
from tenantry.domain.identity.principal import own_session
from tenantry.kernel.service import Injected
from tenantry.tenancy.request import own_tenant, request_transaction, tenant_request

__all__ = ("EmailChangeController", "OwnEmailChangeController")


class OwnEmailChangeController(Controller):
    """Giving one's own account another address."""

    path = "/users/me/email-change"
    tags = ["users"]
    # Whether something waits, and no resource that is changed here or there.
    opt = {"etag": False}

    @get(
        "/",
        operation_id="GetMyEmailChange",
        summary="Get my change of address",
        opt={"any_user": True},
    )
    async def get_change(self, request: Request[Any, Any, Any], db_session: Injected[AsyncSession]) -> EmailChangeState:
        """The change that waits to be confirmed, if there is one."""
        found = await pending_change(db_session, own_session(request).id)
        return EmailChangeState(pending=None if found is None else _read(found))

    @post(
        "/",
        operation_id="ChangeMyEmail",
        summary="Change my address",
        status_code=HTTP_202_ACCEPTED,
        opt={"any_user": True},
    )
    async def create_change(
        self, request: Request[Any, Any, Any], data: Annotated[EmailChangeCreate, Body()]
    ) -> EmailChangeRead:
        """Mail links to the old address and the new one; the account moves once both were followed.

        The answer does not tell whether the new address has an account already. A change that was under way ends.
        """
        principal = own_session(request)
        # No connection is held while the password is hashed: the pool is everybody's.
        await request_transaction(request).pause()
        email_changes: EmailChanges = request.app.state.email_changes
        return _read(
            await email_changes.request(
                own_tenant(request), principal.id, principal.session_id, email=data.email, password=data.password
            )
        )

    @delete(
        "/",
        operation_id="CancelMyEmailChange",
        summary="Cancel my change of address",
        status_code=HTTP_204_NO_CONTENT,
        opt={"any_user": True},
    )
    async def cancel_change(self, request: Request[Any, Any, Any], db_session: Injected[AsyncSession]) -> None:
        """Keep the present address; the mailed links are good no more."""
        await drop_pending(db_session, own_session(request).id)


class EmailChangeController(Controller):
    """What the addresses say to it."""

    path = "/auth/email-change"
    tags = ["auth"]

    @post(
        "/confirm",
        operation_id="ConfirmEmailChange",
        summary="Confirm a change of address",
        status_code=HTTP_200_OK,
        opt={"public": True},
        # No token is one of the ways in: to what the router says, handlers can only add.
        security=[{}],
    )
    async def confirm(
        self, request: Request[Any, Any, Any], data: Annotated[EmailChangeConfirm, Body()]
    ) -> EmailChangeConfirmed:
        """Confirm with the token of either mail, once each. With the second the account has its new address.

        All of the account's sessions end then, but for the one that has asked for the change.
        """
        email_changes: EmailChanges = request.app.state.email_changes
        return EmailChangeConfirmed(
            status=await email_changes.confirm(data.token, host_tenant=tenant_request(request).host_tenant)
        )

    @post(
        "/cancel",
        operation_id="CancelEmailChange",
        summary="Cancel a change of address",
        status_code=HTTP_204_NO_CONTENT,
        opt={"public": True},
        # No token is one of the ways in: to what the router says, handlers can only add.
        security=[{}],
    )
    async def cancel(self, request: Request[Any, Any, Any], data: Annotated[EmailChangeConfirm, Body()]) -> None:
        """Cancel with the token of either mail, also one that has confirmed before."""
        email_changes: EmailChanges = request.app.state.email_changes
        await email_changes.cancel(data.token, host_tenant=tenant_request(request).host_tenant)


def _read(change: EmailChange) -> EmailChangeRead:
    return EmailChangeRead(
        email=change.new_email,
        old_confirmed=change.old_confirmed_at is not None,
        new_confirmed=change.new_confirmed_at is not None,
        expires_at=change.expires_at,
        created_at=change.created_at,
    )
