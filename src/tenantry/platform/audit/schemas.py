"""The audit trail on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from tenantry.kernel.schema import BaseStruct

__all__ = ("AuditEntryRead",)


class AuditEntryRead(BaseStruct):
    id: UUID
    created_at: datetime
    actor: str
    action: str
    tenant_id: UUID | None
    target: str | None
    reason: str | None
    details: dict[str, Any]
    request_id: str | None
