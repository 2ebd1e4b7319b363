"""Routes of the audit trail."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from litestar import Controller, get
from litestar.params import QueryParameter
from sqlalchemy import ColumnElement

from tenantry.kernel.schema import Page
from tenantry.kernel.service import Injected, ListQuery, create_list_query
from tenantry.platform.audit.models import AuditEntry
from tenantry.platform.audit.schemas import AuditEntryRead
from tenantry.platform.audit.service import AuditService, provide_audit
from tenantry.tenancy.guards import requires_permission

__all__ = ("AuditController",)

_Filter = Annotated[str | None, QueryParameter(min_length=1, max_length=200)]


class AuditController(Controller):
    """Who did what to the platform."""

    path = "/audit"
    tags = ["platform"]
    dependencies = {"audit": provide_audit}

    @get(
        "/",
        operation_id="ListAuditEntries",
        summary="Read the audit trail",
        guards=[requires_permission("audit:read")],
        dependencies={
            "listing": create_list_query(
                sortable=("created_at", "actor", "action"),
                searched=("actor", "action", "target", "reason"),
                default="created_at",
                descending=True,
                others=("tenantId", "actor", "action"),
            )
        },
    )
    async def list_entries(
        self,
        audit: Injected[AuditService],
        listing: Injected[ListQuery],
        tenant_id: Annotated[UUID | None, QueryParameter(name="tenantId", description="Acts on this tenant.")] = None,
        actor: _Filter = None,
        action: _Filter = None,
    ) -> Page[AuditEntryRead]:
        """Every act of operators, of the command line and of the provisioner, the newest first."""
        wanted: list[ColumnElement[bool]] = [
            column == value
            for column, value in (
                (AuditEntry.tenant_id, tenant_id),
                (AuditEntry.actor, actor),
                (AuditEntry.action, action),
            )
            if value is not None
        ]
        return await audit.page(listing, AuditEntryRead, *wanted)
