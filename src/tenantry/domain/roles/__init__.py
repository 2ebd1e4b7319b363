"""Roles and what they permit."""

from tenantry.domain.roles.controller import RoleController
from tenantry.domain.roles.models import Role, UserRole
from tenantry.domain.roles.schemas import RoleChanged
from tenantry.domain.roles.service import seed_builtin_roles
from tenantry.events.definition import Event
from tenantry.kernel.feature import Feature, Permission, Quota
from tenantry.tenancy.entitlements import rows_of

FEATURE = Feature(
    name="roles",
    controllers=(RoleController,),
    models=(Role, UserRole),
    permissions=(
        Permission("roles:read", "See roles and what they permit.", roles=("admin", "member", "viewer")),
        Permission("roles:manage", "Make, change and delete roles of what one may do oneself."),
    ),
    identifiers={"role_id": Role},
    seed=seed_builtin_roles,
    events=(
        Event("role.created", "A role was made."),
        Event("role.updated", "A role was changed.", RoleChanged),
        Event("role.deleted", "A role was deleted."),
    ),
    quotas=(Quota("custom_roles", "Roles of the organization's own.", rows_of(Role, ~Role.is_builtin)),),
)
