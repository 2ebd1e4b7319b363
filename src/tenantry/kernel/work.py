"""What is being done at the moment, in a word for logs, traces and the database: a route or a job."""

from __future__ import annotations

from contextvars import ContextVar

__all__ = ("WORK",)

WORK: ContextVar[str] = ContextVar("tenantry_work", default="")
"""`GET /api/teams/{team_id}` or `job send_email`; never a path, whose parts may be secrets. Empty outside of both."""
