"""The organization's consent: what its owners grant, revoke, accept and end."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import func, select, update

from tenantry.domain.operator_access.models import (
    OperatorAccessGrant,
    OperatorAccessRequest,
    OperatorAccessSession,
)
from tenantry.events.record import record_event
from tenantry.kernel.errors import ConflictException, define_problem
from tenantry.kernel.schema import normalize_email
from tenantry.kernel.service import Service, create_service_provider

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = (
    "ACCESS_REQUEST_ANSWERED",
    "REQUEST_LIFE",
    "AccessGrantService",
    "AccessRequestService",
    "AccessSessionService",
    "end_sessions",
    "provide_access_requests",
    "provide_access_sessions",
    "provide_grants",
)

ACCESS_REQUEST_ANSWERED = define_problem(
    "access-request-answered",
    409,
    "Answered already",
    "The operator's request for access was accepted or declined before, or is a week old: `requestStatus` says which.",
)
REQUEST_LIFE = datetime.timedelta(days=7)
"""After which nobody can accept what nobody remembers any more."""


class AccessGrantService(Service[OperatorAccessGrant]):
    """Grants."""

    class Repo(SQLAlchemyAsyncRepository[OperatorAccessGrant]):
        model_type = OperatorAccessGrant

    repository_type = Repo

    async def grant(
        self,
        user_id: UUID,
        *,
        hours: int,
        can_write: bool,
        reason: str,
        operator_email: str | None = None,
        operator_id: UUID | None = None,
    ) -> OperatorAccessGrant:
        """Let operators in for some hours: the one of that address or id, or any.

        Raises:
            ValidationFailedException: the address is none.
        """
        made = await self.create(
            OperatorAccessGrant(
                granted_by_id=user_id,
                operator_id=operator_id,
                operator_email=None
                if operator_email is None
                else normalize_email(operator_email, field="operatorEmail"),
                can_write=can_write,
                reason=reason,
                expires_at=await _now(self.repository.session) + datetime.timedelta(hours=hours),
            )
        )
        await record_event(
            self.repository.session,
            "operator_access.granted",
            subject=made.id,
            payload={"can_write": can_write, "hours": hours, "operator_id": operator_id},
        )
        return made

    async def revoke(self, grant_id: UUID, user_id: UUID | None) -> None:
        """Take it back, and end what it has let in; nothing happens where it is over.

        Who comes in at the same moment waits for the grant's row, or is waited for (`OperatorDoor.open`).

        Raises:
            advanced_alchemy.exceptions.NotFoundError: there is no such grant.
        """
        session = self.repository.session
        found = await self.get(grant_id)
        await session.refresh(found, with_for_update=True)
        if found.status != "active":
            return
        found.revoked_at, found.revoked_by_id = await _now(session), user_id
        await self.flush()
        ended = await end_sessions(session, OperatorAccessSession.grant_id == grant_id)
        await record_event(
            session,
            "operator_access.revoked",
            subject=grant_id,
            payload={"session_ids": [session_id for session_id, _ in ended]},
        )


class AccessRequestService(Service[OperatorAccessRequest]):
    """What operators have asked for."""

    class Repo(SQLAlchemyAsyncRepository[OperatorAccessRequest]):
        model_type = OperatorAccessRequest

    repository_type = Repo

    async def accept(
        self, request_id: UUID, user_id: UUID, *, hours: int | None, can_write: bool | None
    ) -> OperatorAccessRequest:
        """Grant what was asked for to whoever has asked, or what is given here in its place.

        Raises:
            advanced_alchemy.exceptions.NotFoundError: there is no such request.
            ConflictException: it was answered, or is too old.
        """
        asked = await self._answer(request_id, user_id, "accepted")
        made = await AccessGrantService(session=self.repository.session).grant(
            user_id,
            hours=asked.hours if hours is None else hours,
            can_write=asked.can_write if can_write is None else can_write,
            reason=asked.reason,
            operator_id=asked.operator_id,
        )
        asked.grant_id = made.id
        await self.flush()
        return asked

    async def decline(self, request_id: UUID, user_id: UUID) -> OperatorAccessRequest:
        """Say no.

        Raises:
            advanced_alchemy.exceptions.NotFoundError: there is no such request.
            ConflictException: it was answered, or is too old.
        """
        asked = await self._answer(request_id, user_id, "declined")
        await record_event(
            self.repository.session,
            "operator_access.declined",
            subject=request_id,
            payload={"operator_id": asked.operator_id},
        )
        return asked

    async def _answer(self, request_id: UUID, user_id: UUID, status: str) -> OperatorAccessRequest:
        session = self.repository.session
        asked = await self.get(request_id)
        await session.refresh(asked, with_for_update=True)
        now = await _now(session)
        if asked.status == "pending" and asked.created_at < now - REQUEST_LIFE:
            raise ConflictException("The request is too old.", problem=ACCESS_REQUEST_ANSWERED, requestStatus="expired")
        if asked.status != "pending":
            raise ConflictException(
                f"The request was {asked.status}.", problem=ACCESS_REQUEST_ANSWERED, requestStatus=asked.status
            )
        asked.status, asked.answered_at, asked.answered_by_id = status, now, user_id
        await self.flush()
        return asked


class AccessSessionService(Service[OperatorAccessSession]):
    """Who came in."""

    class Repo(SQLAlchemyAsyncRepository[OperatorAccessSession]):
        model_type = OperatorAccessSession

    repository_type = Repo

    async def end(self, session_id: UUID) -> None:
        """Put an operator out, at once; nothing happens to one who is gone.

        Raises:
            advanced_alchemy.exceptions.NotFoundError: there is no such session.
        """
        await self.get(session_id)
        session = self.repository.session
        for ended_id, operator_id in await end_sessions(session, OperatorAccessSession.id == session_id):
            await record_event(
                session, "operator_access.closed", subject=ended_id, payload={"operator_id": operator_id}
            )


async def end_sessions(session: AsyncSession, *which: object) -> Sequence[tuple[UUID, UUID | None]]:
    """End what is open of these sessions, here and in the control plane's list; their ids and operators'."""
    closing = (
        update(OperatorAccessSession)
        .where(OperatorAccessSession.closed_at.is_(None), OperatorAccessSession.expires_at > func.now(), *which)  # type: ignore[arg-type]
        .values(closed_at=func.now(), updated_at=func.now())
        .returning(OperatorAccessSession.id, OperatorAccessSession.operator_id)
        .execution_options(synchronize_session=False)
    )
    ended = [(row.id, row.operator_id) for row in await session.execute(closing)]
    for session_id, _ in ended:
        await session.execute(select(func.platform.close_own_operator_access(session_id)))
    return ended


async def _now(session: AsyncSession) -> datetime.datetime:
    """The database's time, by which what ends is compared."""
    moment: datetime.datetime = (await session.execute(select(func.now()))).scalar_one()
    return moment


provide_grants = create_service_provider(
    AccessGrantService, error_messages={"not_found": "There is no such grant of access."}
)
provide_access_requests = create_service_provider(
    AccessRequestService, error_messages={"not_found": "There is no such request for access."}
)
provide_access_sessions = create_service_provider(
    AccessSessionService, error_messages={"not_found": "No operator was let in under this id."}
)
