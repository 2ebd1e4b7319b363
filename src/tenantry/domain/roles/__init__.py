"""Roles and what they permit."""

from tenantry.domain.roles.controller import RoleController
from tenantry.domain.roles.models import Role, UserRole
from tenantry.domain.roles.service import seed_builtin_roles
from tenantry.kernel.feature import Feature, Permission

FEATURE = Feature(
    name="roles",
    controllers=(RoleController,),
    models=(Role, UserRole),
    permissions=(Permission("roles:read", "See roles and what they permit.", roles=("admin", "member", "viewer")),),
    identifiers={"role_id": Role},
    seed=seed_builtin_roles,
)
