"""Operations on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from tenantry.kernel.schema import BaseStruct

__all__ = ("OperationRead",)


class OperationRead(BaseStruct):
    id: UUID
    kind: str
    status: Literal["pending", "done", "failed"]
    tenant_id: UUID
    error: str | None
    result: dict[str, Any] | None
    """What came of it; depends on the kind."""
    attempts: int
    requested_by: str
    created_at: datetime
    finished_at: datetime | None
