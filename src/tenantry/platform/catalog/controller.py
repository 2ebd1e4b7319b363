"""Routes of the database's catalog, for operators."""

from __future__ import annotations

from litestar import Controller, get

from tenantry.kernel.service import Injected
from tenantry.platform.catalog.schemas import CatalogOverview
from tenantry.platform.catalog.service import CatalogService, provide_catalog
from tenantry.tenancy.guards import requires_permission

__all__ = ("CatalogController",)


class CatalogController(Controller):
    """What a schema for each organization makes of the database."""

    path = "/catalog"
    tags = ["platform"]
    dependencies = {"catalog": provide_catalog}

    @get(
        "/",
        operation_id="GetCatalog",
        summary="See how the database grows",
        guards=[requires_permission("catalog:read")],
    )
    async def get_catalog(self, catalog: Injected[CatalogService]) -> CatalogOverview:
        """What the last measurement found, and how it differs from those of a day, a week and a month before."""
        return await catalog.overview()
