"""Writing down what has happened, in the transaction of what it happened to."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from sqlalchemy import insert
from structlog.contextvars import get_contextvars
from uuid_utils.compat import uuid7

from tenantry.events.definition import RecordedEvent, current_catalogue
from tenantry.events.models import AuditEvent
from tenantry.tenancy.database import transaction_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ("SYSTEM", "current_actor", "record_event", "user_actor")

SYSTEM = "system"
"""The actor of what nobody asked for."""


def user_actor(user_id: UUID) -> str:
    """A user as an actor, for what they do before they are signed in."""
    return f"user:{user_id}"


def current_actor() -> str:
    """Whose doing it is, as the request's or the job's context says.

    A job that a user has asked for is the user's doing. An operator is not named: who that was is for the platform's
    own trail, in which the request's id finds the act. One whom the organization has let in is, by their id.
    """
    context = get_contextvars()
    if (operator := context.get("operator_id")) is not None:
        return f"operator:{operator}"
    if "operator" in context:
        return "operator"
    for kind in ("user", "api_key"):
        if (found := context.get(f"{kind}_id")) is not None:
            return f"{kind}:{found}"
    if (job := context.get("job_name")) is not None:
        return f"job:{job}"
    return SYSTEM


async def record_event(
    session: AsyncSession,
    name: str,
    *,
    subject: UUID,
    payload: Mapping[str, Any] | None = None,
    actor: str | None = None,
) -> RecordedEvent:
    """Write an event down, and enqueue the jobs that it is handed to: if and only if the session's transaction commits.

    Args:
        session: in the tenant's scope, whose event it is.
        name: one that a feature declares (`Feature.events`).
        subject: the id of what it happened to.
        payload: the fields of the event's struct.
        actor: by default `current_actor()`.

    Raises:
        LookupError: no feature declares such an event.
        TypeError: the payload is not what the event's struct says.
        sqlalchemy.exc.DBAPIError: the scope is no tenant's, or the database is away.
    """
    catalogue = current_catalogue()
    event = catalogue.event(name)
    try:
        checked = msgspec.convert(dict(payload or {}), event.payload)
    except msgspec.ValidationError as error:
        # Not as it is: that would be taken for a client's mistake, and it is ours.
        raise TypeError(f"event {name!r}: {error}") from error
    recorded = RecordedEvent(
        id=uuid7(),
        name=name,
        actor=current_actor() if actor is None else actor,
        subject=subject,
        payload=msgspec.to_builtins(checked),
        request_id=get_contextvars().get("request_id"),
        occurred_at=datetime.datetime.now(datetime.UTC),
    )
    # Not by the unit of work: a session that is never flushed again would forget it.
    await session.execute(
        insert(AuditEvent).values(**{field: getattr(recorded, field) for field in RecordedEvent.__struct_fields__})
    )
    if (transaction := transaction_of(session)) is not None:
        # What is cached of it ends with the commit.
        transaction.note_event(name)
    for listen in catalogue.listeners:
        await listen(session, recorded)
    for job in catalogue.handlers(name):
        await job.enqueue(session, event=recorded)
    return recorded
