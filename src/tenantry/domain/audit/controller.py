"""Routes of the organization's audit trail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, get
from litestar.params import QueryParameter
from litestar.response import Stream

from tenantry.domain.audit.schemas import AuditEventRead
from tenantry.domain.audit.service import AuditTrailService, TrailFilter, export_lines, provide_trail
from tenantry.kernel.errors import NotAuthenticatedException
from tenantry.kernel.schema import Page, in_utc
from tenantry.kernel.service import Injected, ListQuery, create_list_query
from tenantry.tenancy.database import Database
from tenantry.tenancy.guards import requires_feature, requires_permission
from tenantry.tenancy.request import request_transaction, tenant_request

__all__ = ("AuditTrailController",)

_Name = Annotated[
    str | None, QueryParameter(min_length=1, max_length=100, description="Events of this name: `team.member_added`.")
]
_Actor = Annotated[
    str | None, QueryParameter(min_length=1, max_length=200, description="What this one did: `user:<id>`, `operator`.")
]
_Subject = Annotated[UUID | None, QueryParameter(description="What happened to this: an id.")]
_From = Annotated[datetime | None, QueryParameter(name="from", description="Not before (RFC 3339, with an offset).")]
_To = Annotated[datetime | None, QueryParameter(name="to", description="Before (RFC 3339, with an offset).")]

_FILTERS = ("name", "actor", "subject", "from", "to")


class AuditTrailController(Controller):
    """What has happened in the organization."""

    path = "/audit"
    tags = ["audit"]

    @get(
        "/",
        operation_id="ListAuditEvents",
        summary="Read the audit trail",
        guards=[requires_permission("audit:read")],
        dependencies={
            "trail": provide_trail,
            "listing": create_list_query(
                sortable=("occurred_at", "name", "actor"),
                searched=("name", "actor"),
                default="occurred_at",
                descending=True,
                others=_FILTERS,
            ),
        },
    )
    async def list_events(
        self,
        trail: Injected[AuditTrailService],
        listing: Injected[ListQuery],
        name: _Name = None,
        actor: _Actor = None,
        subject: _Subject = None,
        since: _From = None,
        until: _To = None,
    ) -> Page[AuditEventRead]:
        """What has happened, the newest first, and whose doing it was. Nothing here is ever changed or deleted."""
        wanted = _filter(name, actor, subject, since, until)
        return await trail.page(listing, AuditEventRead, *wanted.conditions())

    @get(
        "/export",
        operation_id="ExportAuditEvents",
        summary="Export the audit trail",
        media_type="application/x-ndjson",
        guards=[requires_permission("audit:read"), requires_feature("audit_export")],
        opt={"transfer": True},
    )
    async def export_events(
        self,
        request: Request[Any, Any, Any],
        name: _Name = None,
        actor: _Actor = None,
        subject: _Subject = None,
        since: _From = None,
        until: _To = None,
    ) -> Stream:
        """All of it, the oldest first, as lines of JSON (NDJSON)."""
        tenant = tenant_request(request).tenant
        if tenant is None:
            raise NotAuthenticatedException
        wanted = _filter(name, actor, subject, since, until)
        # Whoever reads may be slow: a connection is taken for each piece, and for none while it is sent.
        await request_transaction(request).pause()
        database: Database = request.app.state.database
        pieces = export_lines(database, tenant.read_scope, wanted)
        # Before the answer begins, so that a database that is away is still an error answer.
        first = await anext(pieces, b"")
        return Stream(
            _after(first, pieces),
            media_type="application/x-ndjson",
            headers={
                "Content-Disposition": f'attachment; filename="{tenant.slug}-audit.ndjson"',
                "Cache-Control": "no-store",
            },
        )


def _filter(
    name: str | None, actor: str | None, subject: UUID | None, since: datetime | None, until: datetime | None
) -> TrailFilter:
    return TrailFilter(
        name=name,
        actor=actor,
        subject=subject,
        since=in_utc("from", since, source="query"),
        until=in_utc("to", until, source="query"),
    )


async def _after(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in pieces:
        yield piece
