"""Routes of deletion, for operators."""

from __future__ import annotations

from typing import Annotated, Any, cast
from uuid import UUID

from litestar import Controller, Request, Response, delete, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Body, FromPath, QueryParameter
from litestar.status_codes import HTTP_200_OK, HTTP_202_ACCEPTED

from tenantry.kernel.schema import Page
from tenantry.kernel.service import Injected, ListQuery, create_list_query, to_struct
from tenantry.platform.access import actor_of
from tenantry.platform.deletion.schemas import CertificateRead, CertificateSummary, PurgePayload
from tenantry.platform.deletion.service import (
    CertificateService,
    DeletionService,
    Purger,
    provide_certificates,
    provide_deletion,
)
from tenantry.platform.provisioning.schemas import OperationRead
from tenantry.platform.tenants.schemas import TenantRead
from tenantry.tenancy.guards import requires_permission
from tenantry.tenancy.request import request_transaction

__all__ = ("CertificateController", "DeletionController")

_Reason = Annotated[str | None, QueryParameter(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]


class DeletionController(Controller):
    """Organizations that are to go."""

    path = "/tenants"
    tags = ["platform"]
    dependencies = {"deletion": provide_deletion}

    @delete(
        "/{slug:str}",
        operation_id="DeleteTenant",
        summary="Delete a tenant",
        status_code=HTTP_200_OK,
        guards=[requires_permission("tenants:write")],
    )
    async def delete_tenant(
        self,
        request: Request[Any, Any, Any],
        deletion: Injected[DeletionService],
        slug: FromPath[str],
        reason: _Reason = None,
    ) -> TenantRead:
        """Refuse its requests, everywhere within a second. Its data stay until `purgeAfter`; then they are purged."""
        deleted = await deletion.delete_tenant(
            slug, reason, actor=actor_of(request), grace=request.app.state.settings.deletion_grace
        )
        return to_struct(deleted, TenantRead)

    @post(
        "/{slug:str}/undelete",
        operation_id="UndeleteTenant",
        summary="Undelete a tenant",
        status_code=HTTP_200_OK,
        guards=[requires_permission("tenants:write")],
    )
    async def undelete_tenant(
        self, request: Request[Any, Any, Any], deletion: Injected[DeletionService], slug: FromPath[str]
    ) -> TenantRead:
        """Bring it back as it was when it was deleted, unless its purge has been asked for."""
        return to_struct(await deletion.undelete(slug, actor=actor_of(request)), TenantRead)

    @post(
        "/{slug:str}/purge",
        operation_id="PurgeTenant",
        summary="Purge a tenant",
        status_code=HTTP_200_OK,
        guards=[requires_permission("tenants:purge")],
        responses={
            HTTP_202_ACCEPTED: ResponseSpec(
                OperationRead, description="Recorded; the provisioner has not finished yet. Location is the operation."
            )
        },
    )
    async def purge_tenant(
        self, request: Request[Any, Any, Any], slug: FromPath[str], data: Annotated[PurgePayload, Body()]
    ) -> Response[CertificateRead]:
        """Remove all of it now, for good, and answer with the certificate. `confirm` is the slug once more."""
        # It has transactions of its own, and waits between them: no request may hold two pooled connections.
        await request_transaction(request).pause()
        purger: Purger = request.app.state.purger
        purge = await purger.purge(slug, data.reason, actor=actor_of(request), confirm=data.confirm)
        if purge.certificate is not None:
            return Response(to_struct(purge.certificate, CertificateRead), status_code=HTTP_200_OK)
        return cast(
            "Response[CertificateRead]",
            Response(
                to_struct(purge.operation, OperationRead),
                status_code=HTTP_202_ACCEPTED,
                headers={"Location": f"/platform/operations/{purge.operation.id}", "Retry-After": "1"},
            ),
        )


class CertificateController(Controller):
    """What is left of purged organizations."""

    path = "/certificates"
    tags = ["platform"]
    dependencies = {"certificates": provide_certificates}

    @get(
        "/",
        operation_id="ListCertificates",
        summary="List purge certificates",
        guards=[requires_permission("tenants:read")],
        dependencies={
            "listing": create_list_query(
                sortable=("created_at", "slug"), searched=("slug",), default="created_at", descending=True
            )
        },
    )
    async def list_certificates(
        self, certificates: Injected[CertificateService], listing: Injected[ListQuery]
    ) -> Page[CertificateSummary]:
        """The certificates of all organizations that were purged, the newest first."""
        return await certificates.page(listing, CertificateSummary)

    @get(
        "/{tenant_id:uuid}",
        operation_id="GetCertificate",
        summary="Get a purge certificate",
        guards=[requires_permission("tenants:read")],
    )
    async def get_certificate(
        self, certificates: Injected[CertificateService], tenant_id: FromPath[UUID]
    ) -> CertificateRead:
        """What was removed of an organization, when, and who asked for it; signed."""
        return to_struct(await certificates.of_tenant(tenant_id), CertificateRead)
