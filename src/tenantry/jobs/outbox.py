"""Writing a job down in the transaction of the data that it is about, and ending it with its effect."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import bindparam, delete, select, text
from sqlalchemy.dialects.postgresql import JSONB, insert
from structlog.contextvars import get_contextvars
from uuid_utils.compat import uuid7

from tenantry.jobs.models import OutboxEntry
from tenantry.kernel.tracing import outgoing_traceparent

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ("Entry", "acknowledge", "put", "put_for")

# The function takes the tenant from the transaction's role, never from an argument.
_PUT = text("SELECT platform.enqueue_job(:id, :name, :arguments, :key, :due, :retries, :timeout, :meta)").bindparams(
    bindparam("arguments", type_=JSONB), bindparam("meta", type_=JSONB)
)
_ACKNOWLEDGE = text("SELECT platform.acknowledge_job(:id)")
_TOLD = ("request_id", "trace_id", "user_id", "api_key_id", "operator", "operator_id", "actor")


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be written down; times in seconds."""

    name: str
    arguments: dict[str, Any]
    key: str | None
    due: datetime.datetime | None
    retries: int
    timeout: int


async def put(session: AsyncSession, entry: Entry, *, platform: bool) -> UUID:
    """Write a job down; its id, or that of the one with the same key which waits or runs already.

    Raises:
        sqlalchemy.exc.DBAPIError: the scope is not the one that such a job belongs to.
        LookupError: the one with the same key has ended meanwhile.
    """
    if platform:
        return (await put_for(session, None, entry))[0]
    return (await session.execute(_PUT, _values(entry))).scalar_one()  # type: ignore[no-any-return]


async def put_for(
    session: AsyncSession, tenant_id: UUID | None, entry: Entry, *, actor: str | None = None
) -> tuple[UUID, bool]:
    """As `put`, in the control plane's scope, which may write a job down for whichever tenant (None: the platform).

    `actor` is who asks, where the context does not tell. Returns the job's id and whether it is a new one.

    Raises:
        LookupError: the one with the same key has ended meanwhile.
    """
    now = datetime.datetime.now(datetime.UTC)
    values = _values(entry)
    due = entry.due or now
    values |= {"tenant_id": tenant_id, "due": due, "created_at": now, "updated_at": now}
    values["status"] = "later" if due > now else "pending"
    if actor is not None:
        values["meta"] |= {"actor": actor}
    made: UUID | None = await session.scalar(
        insert(OutboxEntry).values(**values).on_conflict_do_nothing().returning(OutboxEntry.id)
    )
    if made is not None:
        return made, True
    found = await session.scalar(
        select(OutboxEntry.id).where(
            OutboxEntry.tenant_id.is_not_distinct_from(tenant_id),
            OutboxEntry.name == entry.name,
            OutboxEntry.key == entry.key,
            OutboxEntry.status != "dead",
        )
    )
    if found is None:
        raise LookupError("the job with this key has ended at this very moment")
    return found, False


def _values(entry: Entry) -> dict[str, Any]:
    context = get_contextvars()
    meta = {name: str(context[name]) for name in _TOLD if name in context}
    if (traceparent := outgoing_traceparent()) is not None:
        meta["traceparent"] = traceparent
    return {
        "id": uuid7(),
        "name": entry.name,
        "arguments": entry.arguments,
        "key": entry.key,
        "due": entry.due,
        "retries": entry.retries,
        "timeout": entry.timeout,
        "meta": meta,
    }


async def acknowledge(session: AsyncSession, entry_id: UUID, *, platform: bool) -> bool:
    """Remove a job's row, which happens if and only if its effect is committed; False where it is gone already.

    The row's lock makes a second run of the same job wait for the first, and then find nothing.
    """
    if not platform:
        return bool((await session.execute(_ACKNOWLEDGE, {"id": entry_id})).scalar_one())
    found = await session.execute(
        delete(OutboxEntry).where(OutboxEntry.id == entry_id, OutboxEntry.tenant_id.is_(None)).returning(OutboxEntry.id)
    )
    return found.scalar_one_or_none() is not None
