"""Who is told of invitations."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import select

from tenantry.domain.identity.users.queries import HoldersOf
from tenantry.events.models import AuditEvent
from tenantry.events.record import user_actor

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.events.definition import RecordedEvent

__all__ = ("whoever_invited",)

_USERS = user_actor(UUID(int=0)).removesuffix(str(UUID(int=0)))
_managers = HoldersOf("users:write")


async def whoever_invited(session: AsyncSession, event: RecordedEvent) -> Collection[UUID]:
    """Recipients: who has made the invited person's account, as the trail says.

    Where that was nobody of the organization, an operator say, everybody who may add people.
    """
    actor = await session.scalar(
        select(AuditEvent.actor)
        .where(AuditEvent.subject == UUID(event.payload["user_id"]), AuditEvent.name == "user.created")
        .order_by(AuditEvent.id.desc())
        .limit(1)
    )
    if actor is None or not actor.startswith(_USERS):
        return await _managers(session, event)
    return {UUID(actor.removeprefix(_USERS))}
