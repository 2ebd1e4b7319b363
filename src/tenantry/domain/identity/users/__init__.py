"""Accounts of people."""

from tenantry.domain.identity.users.controller import UserController
from tenantry.domain.identity.users.dashboard import USERS_PART
from tenantry.domain.identity.users.models import User
from tenantry.domain.identity.users.queries import HoldersOf
from tenantry.domain.identity.users.schemas import ProfileCopy, RoleHeldCopy, UserChanged, UserRoles
from tenantry.domain.identity.users.service import count_users, create_owner
from tenantry.domain.roles.models import UserRole
from tenantry.events.definition import Event
from tenantry.events.notification import NotificationKind, the_subject
from tenantry.kernel.feature import Feature, Permission, Quota
from tenantry.kernel.personal import PersonalData
from tenantry.tenancy.entitlements import rows_of

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
    personal_data=(
        PersonalData("profile", User, ProfileCopy, where=lambda person: User.id == person.id),
        PersonalData("roles", UserRole, RoleHeldCopy, by=("user_id",)),
    ),
    events=(
        Event("user.created", "A user was added to the organization.", UserRoles),
        Event("user.updated", "A user's profile was changed.", UserChanged),
        Event("user.roles_changed", "A user was given other roles.", UserRoles),
        Event("user.activated", "A user was let in again."),
        Event("user.deactivated", "A user was shut out, and their sessions ended."),
    ),
    notifications=(
        # In a large organization somebody is added every day: for those who want to know.
        NotificationKind(
            "user.created", "Somebody was added to the organization.", HoldersOf("users:write"), in_app=False
        ),
        NotificationKind("user.roles_changed", "You were given other roles.", the_subject),
        NotificationKind("user.activated", "You were let in again.", the_subject),
    ),
    dashboard=(USERS_PART,),
    quotas=(
        Quota(
            "seats",
            "People with an account that is active, invited ones included; machines need none.",
            rows_of(User, User.is_active),
        ),
    ),
)
