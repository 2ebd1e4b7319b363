"""A job on the wire, as the organization sees it."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from tenantry.jobs.state import JobStatus
from tenantry.kernel.schema import BaseStruct

__all__ = ("OwnJobRead",)


class OwnJobRead(BaseStruct):
    """Why one is dead is for the operators: an error may name what lies behind."""

    id: UUID
    name: str
    status: JobStatus
    progress: float
    """From 0 to 1."""
    attempts: int
    """How often it was begun."""
    created_at: datetime | None
    due_at: datetime | None
    """Not before; None once it has ended."""
    finished_at: datetime | None
    result: Any
    """What the job returned, once it is done; kept for an hour, if it does not say otherwise."""
