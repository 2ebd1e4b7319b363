"""Which rows of the outbox are in which state, and how many."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import ColumnElement, and_, func, or_, select

from tenantry.jobs.models import OutboxEntry

if TYPE_CHECKING:
    from collections.abc import Collection
    from uuid import UUID

    from sqlalchemy import Select

__all__ = ("ListedStatus", "count_jobs", "in_state")

ListedStatus = Literal["waiting", "scheduled", "active", "dead"]
"""States of jobs that are not done. How one is done Redis keeps for a while, by its id alone."""


def in_state(status: ListedStatus, active: Collection[UUID]) -> ColumnElement[bool]:
    """The rows in a state; `active` are the jobs that a worker has, of which Redis alone knows."""
    now = datetime.datetime.now(datetime.UTC)
    at_work = OutboxEntry.id.in_(list(active))
    # One that has become due stays `later` until the next relay comes by.
    pending = OutboxEntry.status.in_(("pending", "later"))
    if status == "active":
        return and_(OutboxEntry.status != "dead", at_work)
    if status == "dead":
        return OutboxEntry.status == "dead"
    if status == "scheduled":
        return and_(pending, OutboxEntry.due > now, ~at_work)
    return and_(or_(OutboxEntry.status == "relayed", and_(pending, OutboxEntry.due <= now)), ~at_work)


def count_jobs(active: Collection[UUID], tenant_id: UUID | None) -> Select[*tuple[Any, ...]]:
    """A row for each tenant that has a job, or for that one; `first` is when the first that waits was due."""
    states: tuple[ListedStatus, ...] = ("waiting", "scheduled", "active", "dead")
    statement = select(
        OutboxEntry.tenant_id,
        *(func.count().filter(in_state(status, active)).label(status) for status in states),
        func.min(OutboxEntry.due).filter(in_state("waiting", active)).label("first"),
    ).group_by(OutboxEntry.tenant_id)
    return statement if tenant_id is None else statement.where(OutboxEntry.tenant_id == tenant_id)
