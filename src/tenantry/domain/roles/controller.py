"""Routes of roles."""

from __future__ import annotations

from typing import Any

from litestar import Controller, Request, get

from tenantry.domain.roles.catalogue import PermissionCatalogue
from tenantry.domain.roles.models import Role
from tenantry.domain.roles.schemas import PermissionRead, RoleRead
from tenantry.domain.roles.service import RoleService
from tenantry.kernel.schema import Page
from tenantry.kernel.service import Injected, ListQuery, create_list_query, create_service_provider
from tenantry.tenancy.guards import requires_permission

__all__ = ("RoleController",)


class RoleController(Controller):
    """Roles of the organization, and the catalogue of what they can permit."""

    path = ""
    tags = ["roles"]
    dependencies = {"roles": create_service_provider(RoleService)}

    @get(
        "/roles",
        operation_id="ListRoles",
        summary="List roles",
        guards=[requires_permission("roles:read")],
        dependencies={
            "listing": create_list_query(sortable=("name", "slug"), searched=("name", "slug"), default="name"),
        },
    )
    async def list_roles(
        self, request: Request[Any, Any, Any], roles: Injected[RoleService], listing: Injected[ListQuery]
    ) -> Page[RoleRead]:
        """The organization's roles with what each grants."""
        catalogue: PermissionCatalogue = request.app.state.permissions

        def read(role: Role, struct: type[RoleRead]) -> RoleRead:
            granted = catalogue.granted(role.slug, builtin=role.is_builtin, stored=role.permissions)
            return struct(
                id=role.id,
                slug=role.slug,
                name=role.name,
                description=role.description,
                is_builtin=role.is_builtin,
                permissions=sorted(granted),
            )

        return await roles.page(listing, RoleRead, convert=read)

    @get(
        "/permissions",
        operation_id="ListPermissions",
        summary="List permissions",
        guards=[requires_permission("roles:read")],
    )
    async def list_permissions(self, request: Request[Any, Any, Any]) -> list[PermissionRead]:
        """Every permission that a role can grant."""
        catalogue: PermissionCatalogue = request.app.state.permissions
        return [
            PermissionRead(name=p.name, description=p.description, roles=["owner", *p.roles])
            for p in sorted(catalogue.permissions.values(), key=lambda permission: permission.name)
        ]
