"""The organization's jobs. Their rows are the control plane's, which lets a tenant ask for its own by a function.

The function takes the tenant from the transaction's role, never from an argument (migrations/shared, 0003).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar.di import NamedDependency, Provide
from litestar.params import SkipValidation
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.jobs.schemas import OwnJobRead
from tenantry.jobs.state import made_at, moment, status_of
from tenantry.kernel.errors import ResourceNotFoundException

if TYPE_CHECKING:
    from uuid import UUID

    from saq.job import Job as SaqJob
    from sqlalchemy import Row

__all__ = ("OwnJobService", "describe", "provide_own_jobs")

_OWN = text("SELECT name, status, due, created_at, updated_at FROM platform.own_job(:id)")


class OwnJobService:
    """What an organization may know of its jobs, on a session in its own scope."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def row(self, job_id: UUID) -> Row[Any] | None:
        """A job's row in the outbox; None where it has ended, never was, or is another organization's."""
        return (await self._session.execute(_OWN, {"id": job_id})).one_or_none()


def describe(job_id: UUID, row: Row[Any] | None, kept: SaqJob | None) -> OwnJobRead:
    """A job, of its row and then of what Redis keeps.

    Raises:
        ResourceNotFoundException: neither knows of it.
    """
    status = status_of(None if row is None else row.status, None if row is None else row.due, kept)
    if status is None:
        raise ResourceNotFoundException("There is no such job, or it ended too long ago.")
    ended = status in {"done", "dead", "cancelled"}
    finished = None if kept is None or not ended else moment(kept.completed)
    if finished is None and row is not None and status == "dead":
        finished = row.updated_at
    return OwnJobRead(
        id=job_id,
        name=row.name if row is not None else kept.function if kept is not None else "",
        status=status,
        progress=1.0 if status == "done" else 0.0 if kept is None else kept.progress,
        attempts=0 if kept is None else kept.attempts,
        created_at=made_at(job_id) or (None if row is None else row.created_at),
        due_at=None if row is None or ended else row.due,
        finished_at=finished,
        result=kept.result if kept is not None and status == "done" else None,
    )


async def _provide(db_session: NamedDependency[SkipValidation[AsyncSession]]) -> OwnJobService:
    return OwnJobService(db_session)


provide_own_jobs = Provide(_provide)
