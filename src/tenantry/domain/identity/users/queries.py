"""Who the organization's people are, for whoever has something to tell them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import and_, any_, literal, or_, select

from tenantry.domain.identity.users.models import User
from tenantry.domain.roles.models import Role, UserRole
from tenantry.events.definition import current_catalogue

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.events.definition import Event, RecordedEvent

__all__ = ("HoldersOf",)


@dataclass(frozen=True, slots=True)
class HoldersOf:
    """Recipients: everybody active who holds a permission, by whatever role, superusers included."""

    permission: str

    def check(self, event: Event, permissions: Collection[str]) -> None:
        """Raises ValueError where no feature declares the permission."""
        if self.permission not in permissions:
            raise ValueError(f"nobody can hold {self.permission!r}, to be told of {event.name!r}: there is none")

    async def __call__(self, session: AsyncSession, _: RecordedEvent) -> Collection[UUID]:
        builtin = ("owner", *current_catalogue().permissions[self.permission].roles)
        granting = or_(
            and_(Role.is_builtin, Role.slug.in_(builtin)),
            and_(Role.is_builtin.is_(False), literal(self.permission) == any_(Role.permissions)),
        )
        holders = select(UserRole.user_id).join(Role, Role.id == UserRole.role_id).where(granting)
        return set(
            await session.scalars(select(User.id).where(User.is_active, User.is_superuser | User.id.in_(holders)))
        )
