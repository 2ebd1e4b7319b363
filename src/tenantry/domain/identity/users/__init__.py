"""Accounts of people."""

from tenantry.domain.identity.users.controller import UserController
from tenantry.domain.identity.users.models import User
from tenantry.domain.identity.users.service import count_users, create_owner
from tenantry.kernel.feature import Feature, Permission

FEATURE = Feature(
    name="users",
    controllers=(UserController,),
    models=(User,),
    permissions=(
        Permission("users:read", "See the organization's people.", roles=("admin", "member", "viewer")),
        Permission("users:write", "Add people, change their accounts and roles."),
    ),
    identifiers={"user_id": User},
    provision=create_owner,
    usage=count_users,
)
