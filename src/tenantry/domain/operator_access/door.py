"""The organization's side of an operator's coming in, called by the control plane (`tenantry.tenancy.operators`)."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, func, or_, select, update

from tenantry.domain.identity.users.queries import HoldersOf
from tenantry.domain.operator_access.mails import ACCESS_REQUESTED_MAIL, GLASS_BROKEN_MAIL
from tenantry.domain.operator_access.models import (
    OperatorAccessGrant,
    OperatorAccessNotice,
    OperatorAccessRequest,
    OperatorAccessSession,
)
from tenantry.domain.operator_access.service import REQUEST_LIFE, end_sessions
from tenantry.events.record import record_event
from tenantry.kernel.errors import ConflictException, PermissionDeniedException, define_problem
from tenantry.tenancy.operators import Admitted, Asked

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.events.definition import RecordedEvent
    from tenantry.kernel.settings import Settings
    from tenantry.mail.definition import Mail
    from tenantry.tenancy.operators import Visit, Visitor

__all__ = ("ACCESS_NOT_GRANTED", "ACCESS_REQUEST_PENDING", "OWNERS", "OperatorDoor")

ACCESS_NOT_GRANTED = define_problem(
    "access-not-granted",
    403,
    "The organization has not consented",
    "No owner of the organization has granted this access, or not to this operator, not to write, or no more. Ask for "
    "it (POST /platform/tenants/{slug}/access/requests).",
)
ACCESS_REQUEST_PENDING = define_problem(
    "access-request-pending",
    409,
    "Asked already",
    "The organization's owners were asked for access by this operator and have not answered yet.",
)

OWNERS = HoldersOf("operator_access:manage")
_LISTED = 100


class OperatorDoor:
    """Opens, closes and asks, in the organization's scope; see `tenantry.tenancy.operators.Door`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def open(self, session: AsyncSession, visit: Visit) -> Admitted:
        """Let an operator in by a grant, or break the glass: then the owners are told in this very transaction.

        Raises:
            PermissionDeniedException: there is no grant for it, and it is no break-glass.
        """
        now = await _now(session)
        expires_at, grant_id = now + datetime.timedelta(seconds=visit.seconds), None
        if not visit.break_glass:
            grant = await _grant_for(session, visit)
            expires_at, grant_id = min(expires_at, grant.expires_at), grant.id
        visitor = visit.visitor
        session.add(
            OperatorAccessSession(
                id=visit.id,
                operator_id=visitor.id,
                operator_name=visitor.name,
                grant_id=grant_id,
                way=visit.way,
                can_write=visit.can_write,
                reason=visit.reason,
                expires_at=expires_at,
            )
        )
        await session.flush()
        recorded = await record_event(
            session,
            "operator_access.glass_broken" if visit.break_glass else "operator_access.opened",
            subject=visit.id,
            payload={
                "operator_id": visitor.id,
                "way": visit.way,
                "can_write": visit.can_write,
                "seconds": int((expires_at - now).total_seconds()),
                "grant_id": grant_id,
            },
            actor=visitor.actor,
        )
        if visit.break_glass:
            await self._write_to_owners(session, GLASS_BROKEN_MAIL, recorded, session_id=visit.id)
        return Admitted(expires_at=expires_at, grant_id=grant_id)

    async def close(self, session: AsyncSession, visit_id: UUID, visitor: Visitor) -> bool:
        """End a session; whether it was open."""
        ended = await end_sessions(session, OperatorAccessSession.id == visit_id)
        for session_id, operator_id in ended:
            await record_event(
                session,
                "operator_access.closed",
                subject=session_id,
                payload={"operator_id": operator_id},
                actor=visitor.actor,
            )
        return bool(ended)

    async def ask(self, session: AsyncSession, visitor: Visitor, *, reason: str, can_write: bool, hours: int) -> UUID:
        """Ask the owners, each by a notification and a mail.

        Raises:
            ConflictException: this operator has asked, and nobody has answered.
        """
        if visitor.id is None:
            raise TypeError("who asks is an operator")
        mine = and_(OperatorAccessRequest.operator_id == visitor.id, OperatorAccessRequest.status == "pending")
        await session.execute(
            update(OperatorAccessRequest)
            .where(mine, OperatorAccessRequest.created_at < func.now() - REQUEST_LIFE)
            .values(status="expired", updated_at=func.now())
            .execution_options(synchronize_session=False)
        )
        if await session.scalar(select(OperatorAccessRequest.id).where(mine)) is not None:
            raise ConflictException(problem=ACCESS_REQUEST_PENDING)
        asked = OperatorAccessRequest(
            operator_id=visitor.id, operator_name=visitor.name, can_write=can_write, hours=hours, reason=reason
        )
        session.add(asked)
        await session.flush()
        recorded = await record_event(
            session,
            "operator_access.requested",
            subject=asked.id,
            payload={"operator_id": visitor.id, "can_write": can_write, "hours": hours},
            actor=visitor.actor,
        )
        await self._write_to_owners(session, ACCESS_REQUESTED_MAIL, recorded, request_id=asked.id)
        return asked.id

    async def asked(self, session: AsyncSession) -> list[Asked]:
        """The last requests, the newest first."""
        rows = await session.execute(
            select(OperatorAccessRequest, OperatorAccessGrant)
            .outerjoin(OperatorAccessGrant, OperatorAccessGrant.id == OperatorAccessRequest.grant_id)
            .order_by(OperatorAccessRequest.id.desc())
            .limit(_LISTED)
        )
        return [
            Asked(
                id=asked.id,
                operator_id=asked.operator_id,
                can_write=asked.can_write if grant is None else grant.can_write,
                hours=asked.hours,
                reason=asked.reason,
                status=asked.status,
                created_at=asked.created_at,
                answered_at=asked.answered_at,
                granted_until=None if grant is None else grant.revoked_at or grant.expires_at,
            )
            for asked, grant in rows
        ]

    async def _write_to_owners(self, session: AsyncSession, mail: Mail, event: RecordedEvent, **about: Any) -> None:
        """Each of them, now; those who are told of the event inside the application are the same."""
        if self._settings.mail_url is None:
            return
        notices = [OperatorAccessNotice(user_id=user_id, **about) for user_id in sorted(await OWNERS(session, event))]
        session.add_all(notices)
        await session.flush()
        for notice in notices:
            await mail.send(session, about=notice.id)


async def _grant_for(session: AsyncSession, visit: Visit) -> OperatorAccessGrant:
    """The longest grant that lets them in, locked against being revoked meanwhile."""
    grant, visitor = OperatorAccessGrant, visit.visitor
    who = [and_(grant.operator_id.is_(None), grant.operator_email.is_(None))]
    if visitor.id is not None:
        who.append(grant.operator_id == visitor.id)
    if visitor.email is not None:
        who.append(grant.operator_email == visitor.email)
    wanted = select(grant).where(grant.revoked_at.is_(None), grant.expires_at > func.now(), or_(*who))
    if visit.can_write:
        wanted = wanted.where(grant.can_write)
    found = await session.scalar(wanted.order_by(grant.expires_at.desc()).limit(1).with_for_update(read=True))
    if found is None:
        raise PermissionDeniedException("No owner has granted this access.", problem=ACCESS_NOT_GRANTED)
    return found


async def _now(session: AsyncSession) -> datetime.datetime:
    moment: datetime.datetime = (await session.execute(select(func.now()))).scalar_one()
    return moment
