"""Routes of roles."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, delete, get, patch, post
from litestar.params import Body, FromPath

from tenantry.domain.roles.catalogue import PermissionCatalogue
from tenantry.domain.roles.models import Role
from tenantry.domain.roles.schemas import PermissionRead, RoleCreate, RoleRead, RoleUpdate
from tenantry.domain.roles.service import RoleService, provide_roles
from tenantry.kernel.schema import Page, changes
from tenantry.kernel.service import Injected, ListQuery, create_list_query
from tenantry.tenancy.guards import principal_of, requires_permission

__all__ = ("RoleController",)


class RoleController(Controller):
    """Roles of the organization, and the catalogue of what they can permit."""

    path = ""
    tags = ["roles"]
    dependencies = {"roles": provide_roles}

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
        return await roles.page(listing, RoleRead, convert=lambda role, _: _read(role, catalogue))

    @post("/roles", operation_id="CreateRole", summary="Make a role", guards=[requires_permission("roles:manage")])
    async def create_role(
        self, request: Request[Any, Any, Any], roles: Injected[RoleService], data: Annotated[RoleCreate, Body()]
    ) -> RoleRead:
        """Make a role of permissions out of the catalogue, of which the caller holds every one."""
        catalogue: PermissionCatalogue = request.app.state.permissions
        role = await roles.make(
            name=data.name,
            slug=data.slug,
            description=data.description,
            permissions=data.permissions,
            held=principal_of(request).permissions,
            catalogue=catalogue,
        )
        return _read(role, catalogue)

    @get(
        "/roles/{role_id:uuid}",
        operation_id="GetRole",
        summary="Get a role",
        guards=[requires_permission("roles:read")],
    )
    async def get_role(
        self, request: Request[Any, Any, Any], roles: Injected[RoleService], role_id: FromPath[UUID]
    ) -> RoleRead:
        """One role with what it grants."""
        return _read(await roles.get(role_id), request.app.state.permissions)

    @patch(
        "/roles/{role_id:uuid}",
        operation_id="UpdateRole",
        summary="Change a role",
        guards=[requires_permission("roles:manage")],
    )
    async def update_role(
        self,
        request: Request[Any, Any, Any],
        roles: Injected[RoleService],
        role_id: FromPath[UUID],
        data: Annotated[RoleUpdate, Body()],
    ) -> RoleRead:
        """Change what is sent, and nothing else; it counts with the next request of whoever holds the role.

        Built-in roles are not changed. Neither is a role that permits more than the caller may do.
        """
        catalogue: PermissionCatalogue = request.app.state.permissions
        role = await roles.change(role_id, changes(data), held=principal_of(request).permissions, catalogue=catalogue)
        return _read(role, catalogue)

    @delete(
        "/roles/{role_id:uuid}",
        operation_id="DeleteRole",
        summary="Delete a role",
        guards=[requires_permission("roles:manage")],
    )
    async def delete_role(
        self, request: Request[Any, Any, Any], roles: Injected[RoleService], role_id: FromPath[UUID]
    ) -> None:
        """Delete a role that nobody holds; open invitations that would have given it are void."""
        await roles.remove(role_id, held=principal_of(request).permissions, catalogue=request.app.state.permissions)

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


def _read(role: Role, catalogue: PermissionCatalogue) -> RoleRead:
    granted = catalogue.granted(role.slug, builtin=role.is_builtin, stored=role.permissions)
    return RoleRead(
        id=role.id,
        slug=role.slug,
        name=role.name,
        description=role.description,
        is_builtin=role.is_builtin,
        permissions=sorted(granted),
        created_at=role.created_at,
        updated_at=role.updated_at,
    )
