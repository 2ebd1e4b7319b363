"""Routes of what tenants use, for operators."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any

from litestar import Controller, Request, get
from litestar.openapi.spec import OpenAPIResponse, Operation
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream

from tenantry.kernel.errors import UnavailableException
from tenantry.kernel.service import Injected
from tenantry.platform.tenants.service import TenantService, provide_tenants
from tenantry.platform.usage.schemas import MONTH, ExportFormat, ExportRows, MeteredUsage
from tenantry.platform.usage.service import MEDIA_TYPES, Metering, export_pieces
from tenantry.tenancy.context import control_scope
from tenantry.tenancy.guards import requires_permission
from tenantry.tenancy.request import request_transaction
from tenantry.tenancy.use import period
from tenantry.tenancy.wiring import scope_times

__all__ = ("UsageController",)

_From = Annotated[date | None, QueryParameter(name="from", description="The first day; that of this month by default.")]
_To = Annotated[date | None, QueryParameter(name="to", description="The last day; today by default, in UTC.")]


@dataclass
class _ExportOperation(Operation):
    """The description of a route whose answer has one of two forms, of which a handler can name one."""

    def __post_init__(self) -> None:
        for status, answer in (self.responses or {}).items():
            if status == "200" and isinstance(answer, OpenAPIResponse) and answer.content:
                answer.content["text/csv"] = answer.content["application/x-ndjson"]


class UsageController(Controller):
    """What organizations have used."""

    path = "/"
    tags = ["platform"]

    @get(
        "/tenants/{slug:str}/usage",
        operation_id="GetTenantUsage",
        summary="See what a tenant takes up and uses",
        guards=[requires_permission("tenants:read")],
        dependencies={"tenants": provide_tenants},
    )
    async def get_usage(
        self,
        request: Request[Any, Any, Any],
        tenants: Injected[TenantService],
        slug: FromPath[str],
        since: _From = None,
        until: _To = None,
    ) -> MeteredUsage:
        """Its size, its users and last activity, its jobs and connections now, and what it has used day by day.

        Of a purged organization the days are left, for the bills.
        """
        days = period(since, until)
        tenant = await tenants.by_slug(slug)
        await request_transaction(request).pause()
        state = request.app.state
        metering: Metering = state.metering
        if tenant.status == "purged":
            return await metering.days(tenant.id, *days)
        context = await state.registry.find_slug(tenant.slug)
        if context is None:
            raise UnavailableException("The organization was changed a moment ago.")
        return await metering.of(context, *days)

    @get(
        "/usage",
        operation_id="ExportUsage",
        summary="Export the use of a month",
        media_type="application/x-ndjson",
        operation_class=_ExportOperation,
        guards=[requires_permission("usage:read")],
    )
    async def export_usage(
        self,
        request: Request[Any, Any, Any],
        month: Annotated[str, QueryParameter(pattern=MONTH, description="The month, in UTC: `2026-11`.")],
        form: Annotated[
            ExportFormat, QueryParameter(name="format", description="CSV (RFC 4180), or lines of JSON.")
        ] = "jsonl",
        rows: Annotated[
            ExportRows, QueryParameter(description="A line for each organization and plan, or for each day of it.")
        ] = "tenant",
    ) -> Stream:
        """What all organizations have used, for their bills; purged ones are among them."""
        # Whoever reads may be slow: a connection is taken for each piece, and for none while it is sent.
        await request_transaction(request).pause()
        state = request.app.state
        scope = control_scope(scope_times(state.settings), read_only=True)
        pieces = export_pieces(state.database, scope, month, rows=rows, form=form)
        # Before the answer begins, so that a database that is away is still an error answer.
        first = await anext(pieces, b"")
        return Stream(
            _after(first, pieces),
            headers={
                # Not by `media_type`: that of the route, for its description, would take its place.
                "Content-Type": MEDIA_TYPES[form],
                "Content-Disposition": f'attachment; filename="usage-{month}.{form}"',
                "Cache-Control": "no-store",
            },
        )


async def _after(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in pieces:
        yield piece
