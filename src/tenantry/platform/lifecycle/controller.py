"""Routes of what is done to a tenant as a whole, for operators."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, Response, get, post
from litestar.datastructures import ResponseHeader
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Body, FromPath
from litestar.response import Stream
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED, HTTP_202_ACCEPTED

from tenantry.kernel.errors import PermissionDeniedException
from tenantry.kernel.schema import Page
from tenantry.kernel.service import Injected, ListQuery, create_list_query, to_struct
from tenantry.kernel.storage import Storage
from tenantry.platform.access import actor_of
from tenantry.platform.lifecycle.schemas import (
    ArchivePayload,
    ExportPayload,
    ExportRead,
    TenantClone,
    TenantImport,
    read_export,
)
from tenantry.platform.lifecycle.service import ExportService, Lifecycle, NewTenant, Outcome, provide_exports
from tenantry.platform.provisioning.models import Operation
from tenantry.platform.provisioning.schemas import OperationRead
from tenantry.platform.tenants.schemas import TenantCreated, TenantRead
from tenantry.platform.tenants.service import TenantService, provide_tenants
from tenantry.tenancy.guards import principal_of, requires_permission
from tenantry.tenancy.request import request_transaction

__all__ = ("ImportController", "LifecycleController", "TenantExportController")

_TRUSTED = "tenants:purge"
"""Who may have people's password hashes and sessions is trusted with everything, as who may purge is."""

_RECORDED = "Recorded; the provisioner has not finished yet. Location is the operation."
_MADE = ResponseHeader(name="Location", description="The new tenant's address.", documentation_only=True)


async def _lifecycle(request: Request[Any, Any, Any]) -> Lifecycle:
    """What carries it out; it has transactions of its own, and no request may hold two pooled connections."""
    await request_transaction(request).pause()
    found: Lifecycle = request.app.state.lifecycle
    return found


def _later(operation: Operation, body: Any) -> Response[Any]:
    return Response(
        body,
        status_code=HTTP_202_ACCEPTED,
        headers={"Location": f"/platform/operations/{operation.id}", "Retry-After": "1"},
    )


def _moved(outcome: Outcome) -> Response[TenantRead]:
    if not outcome.done:
        return _later(outcome.operation, to_struct(outcome.operation, OperationRead))
    return Response(to_struct(outcome.tenant, TenantRead), status_code=HTTP_200_OK)


def _made(outcome: Outcome) -> Response[TenantCreated]:
    tenant = outcome.tenant
    body = TenantCreated(
        **{name: getattr(tenant, name) for name in TenantRead.__struct_fields__}, owner_invitation=outcome.invitation
    )
    if not outcome.done:
        # Also now: the invitation is shown once, and whoever asks again is told that the slug is taken.
        return _later(outcome.operation, body)
    return Response(body, status_code=HTTP_201_CREATED, headers={"Location": f"/platform/tenants/{tenant.slug}"})


class LifecycleController(Controller):
    """Archiving, restoring and cloning organizations."""

    path = "/tenants"
    tags = ["platform"]

    @post(
        "/{slug:str}/archive",
        operation_id="ArchiveTenant",
        summary="Archive a tenant",
        status_code=HTTP_200_OK,
        guards=[requires_permission("tenants:write")],
        responses={HTTP_202_ACCEPTED: ResponseSpec(OperationRead, description=_RECORDED)},
    )
    async def archive_tenant(
        self, request: Request[Any, Any, Any], slug: FromPath[str], data: Annotated[ArchivePayload, Body()]
    ) -> Response[TenantRead]:
        """Refuse its requests, everywhere within a second, and move its data into the storage."""
        lifecycle = await _lifecycle(request)
        return _moved(await lifecycle.archive(slug, data.reason, actor=actor_of(request)))

    @post(
        "/{slug:str}/restore",
        operation_id="RestoreTenant",
        summary="Restore a tenant",
        status_code=HTTP_200_OK,
        guards=[requires_permission("tenants:write")],
        responses={HTTP_202_ACCEPTED: ResponseSpec(OperationRead, description=_RECORDED)},
    )
    async def restore_tenant(self, request: Request[Any, Any, Any], slug: FromPath[str]) -> Response[TenantRead]:
        """Bring an archived organization's data back, at this release's revision, and serve it again."""
        lifecycle = await _lifecycle(request)
        return _moved(await lifecycle.restore(slug, actor=actor_of(request)))

    @post(
        "/{slug:str}/clone",
        operation_id="CloneTenant",
        summary="Clone a tenant",
        status_code=HTTP_201_CREATED,
        guards=[requires_permission("tenants:export")],
        response_headers=[_MADE],
        responses={HTTP_202_ACCEPTED: ResponseSpec(TenantCreated, description=_RECORDED)},
    )
    async def clone_tenant(
        self, request: Request[Any, Any, Any], slug: FromPath[str], data: Annotated[TenantClone, Body()]
    ) -> Response[TenantCreated]:
        """Make an organization with the rows of this one as they are now, sessions and invitations left out.

        Who makes an unmasked one may become its owner and read all of it: they need the trust that a purge needs.
        """
        if not data.mask_emails:
            _require_trust(request, "a clone that is not masked")
        lifecycle = await _lifecycle(request)
        new = NewTenant.of(data)
        return _made(await lifecycle.clone(slug, new, mask=data.mask_emails, actor=actor_of(request)))


class ImportController(Controller):
    """Making organizations of archives."""

    # Not /tenants/import: an organization may have that name.
    path = "/imports"
    tags = ["platform"]

    @post(
        "/",
        operation_id="ImportTenant",
        summary="Import a tenant",
        status_code=HTTP_201_CREATED,
        guards=[requires_permission("tenants:write")],
        response_headers=[_MADE],
        responses={HTTP_202_ACCEPTED: ResponseSpec(TenantCreated, description=_RECORDED)},
    )
    async def import_tenant(
        self, request: Request[Any, Any, Any], data: Annotated[TenantImport, Body()]
    ) -> Response[TenantCreated]:
        """Make an organization of an archive that lies in the storage, checked as a whole before anything is done."""
        lifecycle = await _lifecycle(request)
        new = NewTenant.of(data)
        return _made(await lifecycle.import_tenant(data.key, new, actor=actor_of(request)))


class TenantExportController(Controller):
    """Copies of an organization's data, to be fetched for a while."""

    path = "/tenants/{slug:str}"
    tags = ["platform"]
    dependencies = {"tenants": provide_tenants, "exports": provide_exports}

    @post(
        "/export",
        operation_id="ExportTenant",
        summary="Export a tenant",
        status_code=HTTP_200_OK,
        guards=[requires_permission("tenants:export")],
        responses={HTTP_202_ACCEPTED: ResponseSpec(ExportRead, description=_RECORDED)},
    )
    async def export_tenant(
        self, request: Request[Any, Any, Any], slug: FromPath[str], data: Annotated[ExportPayload, Body()]
    ) -> Response[ExportRead]:
        """Write an archive of it as it is now, while it is served."""
        if data.credentials:
            _require_trust(request, "an export with credentials")
        lifecycle = await _lifecycle(request)
        outcome = await lifecycle.export(slug, credentials=data.credentials, actor=actor_of(request))
        body = read_export(outcome.operation)
        return Response(body, status_code=HTTP_200_OK) if outcome.done else _later(outcome.operation, body)

    @get(
        "/exports",
        operation_id="ListTenantExports",
        summary="List a tenant's exports",
        guards=[requires_permission("tenants:read")],
        dependencies={
            "listing": create_list_query(
                sortable=("created_at", "status"),
                searched=("requested_by",),
                default="created_at",
                descending=True,
            )
        },
    )
    async def list_exports(
        self,
        tenants: Injected[TenantService],
        exports: Injected[ExportService],
        slug: FromPath[str],
        listing: Injected[ListQuery],
    ) -> Page[ExportRead]:
        """Its exports, the newest first, whoever asked for them."""
        tenant = await tenants.by_slug(slug)
        return await exports.page(
            listing, ExportRead, Operation.tenant_id == tenant.id, Operation.kind == "export", convert=read_export
        )

    @get(
        "/exports/{operation_id:uuid}/content",
        operation_id="GetTenantExportContent",
        summary="Fetch a tenant's export",
        media_type="application/zip",
        guards=[requires_permission("tenants:export")],
    )
    async def get_export_content(
        self,
        request: Request[Any, Any, Any],
        tenants: Injected[TenantService],
        exports: Injected[ExportService],
        slug: FromPath[str],
        operation_id: FromPath[UUID],
    ) -> Stream:
        """The archive (docs/archive-format.md)."""
        tenant = await tenants.by_slug(slug)
        operation = await exports.of_tenant(tenant.id, operation_id)
        if (operation.result or {}).get("credentials"):
            _require_trust(request, "an export with credentials")
        lifecycle = await _lifecycle(request)
        key, size = await lifecycle.open_export(operation)
        storage: Storage = request.app.state.open_storage()
        return Stream(
            storage.stream(key),
            media_type="application/zip",
            headers={
                "Content-Disposition": f'attachment; filename="{tenant.slug}-{operation.id}.zip"',
                "Content-Length": str(size),
                # It is somebody's data: no cache on the way keeps them.
                "Cache-Control": "no-store",
            },
        )


def _require_trust(request: Request[Any, Any, Any], what: str) -> None:
    if _TRUSTED not in principal_of(request).permissions:
        raise PermissionDeniedException(f"For {what}, the permission {_TRUSTED!r} is needed.", permission=_TRUSTED)
