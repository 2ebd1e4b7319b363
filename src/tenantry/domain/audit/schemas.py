"""The audit trail on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from tenantry.kernel.schema import BaseStruct

__all__ = ("AuditEventRead",)


class AuditEventRead(BaseStruct):
    """Something that has happened."""

    id: UUID
    name: str
    """`<resource>.<verb>`: `team.member_added`."""
    actor: str
    """`user:<id>`, `api_key:<id>`, `operator` or `operator:<id>`, `job:<name>` or `system`."""
    subject: UUID
    """What it happened to."""
    payload: dict[str, Any]
    """What else there is to know, by the event's name: ids and words, nothing personal."""
    request_id: str | None
    occurred_at: datetime
