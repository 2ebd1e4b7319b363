"""The users' service, with what is loaded beside a user."""

from __future__ import annotations

from sqlalchemy.orm import joinedload, load_only, selectinload

from tenantry.domain.identity.users.models import User
from tenantry.domain.identity.users.service import UserService
from tenantry.domain.roles.models import Role, UserRole
from tenantry.kernel.service import create_service_provider

__all__ = ("provide_users",)

provide_users = create_service_provider(
    UserService,
    load=[
        selectinload(User.roles).options(
            joinedload(UserRole.role, innerjoin=True).options(load_only(Role.slug, Role.name))
        )
    ],
    uniquify=True,
    error_messages={
        "duplicate_key": "This e-mail address has an account already.",
        "integrity": "The account cannot be changed like this.",
        "not_found": "There is no such user.",
    },
)
