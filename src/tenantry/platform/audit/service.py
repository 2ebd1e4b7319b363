"""The audit trail of the control plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from advanced_alchemy.repository import SQLAlchemyAsyncRepository

from tenantry.kernel.actor import cli_actor
from tenantry.kernel.service import Service, create_service_provider
from tenantry.platform.audit.models import AuditEntry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ("AuditService", "cli_actor", "provide_audit", "record")

PROVISIONER = "provisioner"
"""The actor of what nobody asked for at that moment: the end of a grace time, say."""


class AuditService(Service[AuditEntry]):
    """Reads the trail."""

    class Repo(SQLAlchemyAsyncRepository[AuditEntry]):
        model_type = AuditEntry

    repository_type = Repo


def record(
    session: AsyncSession,
    *,
    actor: str,
    action: str,
    tenant_id: UUID | None = None,
    target: str | None = None,
    reason: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write down one act, in the transaction that does it: neither is ever there without the other."""
    session.add(
        AuditEntry(
            actor=actor,
            action=action,
            tenant_id=tenant_id,
            target=target,
            reason=reason,
            details=dict(details or {}),
            request_id=structlog.contextvars.get_contextvars().get("request_id"),
        )
    )


provide_audit = create_service_provider(AuditService)
