"""The owner of an organization that has people already: of a clone or an import, and after one was erased."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from tenantry.domain.identity.invitations.service import invite_owner
from tenantry.domain.identity.users.models import User
from tenantry.domain.identity.users.service import create_owner
from tenantry.domain.roles.models import Role, UserRole
from tenantry.kernel.errors import ConflictException
from tenantry.kernel.schema import normalize_email

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.kernel.feature import Owner
    from tenantry.kernel.personal import Person

__all__ = ("adopt_owner", "forget_owner_address")


async def adopt_owner(session: AsyncSession, owner: Owner) -> None:
    """Make the user with the owner's address an owner, activate them and give them their way in; or make such a user.

    Raises:
        ConflictException: the organization has no role `owner` to give.
    """
    role = await session.scalar(select(Role).where(Role.slug == "owner", Role.is_builtin))
    if role is None:
        raise ConflictException("There is no built-in role 'owner' in the organization's data.")
    user = await session.scalar(select(User).where(User.email == normalize_email(owner.email)))
    if user is None:
        await create_owner(session, owner)
    else:
        user.is_active = True
        if owner.password_hash is not None:
            user.hashed_password = owner.password_hash
        if owner.name is not None:
            user.name = owner.name
        if all(held.role_id != role.id for held in user.roles):
            user.roles.append(UserRole(role=role))
        await session.flush()
        owner = dataclasses.replace(owner, id=user.id)
    await invite_owner(session, owner)


async def forget_owner_address(session: AsyncSession, person: Person) -> None:
    """Let the control plane have the address of an owner who stays, if the one that it has is the person's.

    It has the first owner's, for operators who have something to say to the organization.
    """
    successor = await session.scalar(
        select(User.email)
        .join(UserRole, UserRole.user_id == User.id)
        .join(Role, Role.id == UserRole.role_id)
        .where(Role.slug == "owner", Role.is_builtin, User.is_active, User.id != person.id)
        .order_by(User.joined_at, User.id)
        .limit(1)
    )
    if successor is not None:
        await session.execute(select(func.platform.replace_owner_email(person.email, successor)))
