"""Roles of one organization."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import func, insert, select
from uuid_utils.compat import uuid7

from tenantry.domain.roles.models import BUILTIN_ROLES, Role, UserRole
from tenantry.events.record import record_event
from tenantry.kernel.errors import (
    ConflictException,
    FieldError,
    PermissionDeniedException,
    ResourceNotFoundException,
    ValidationFailedException,
    define_problem,
)
from tenantry.kernel.service import Service, changed_fields, create_service_provider
from tenantry.kernel.text import slugify
from tenantry.tenancy.quotas import use_quota

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.domain.roles.catalogue import PermissionCatalogue

__all__ = (
    "BEYOND_OWN",
    "BUILTIN_ROLE",
    "ROLE_IN_USE",
    "RoleService",
    "provide_roles",
    "require_held",
    "seed_builtin_roles",
)

BEYOND_OWN = define_problem(
    "beyond-own-permissions",
    403,
    "More than you may do yourself",
    "Nobody gives others, or takes from them, what they do not hold themselves. `permissions` names what the caller "
    "lacks.",
)
BUILTIN_ROLE = define_problem(
    "builtin-role",
    409,
    "A built-in role",
    "What the roles owner, admin, member and viewer grant comes with the product: they are neither changed nor "
    "deleted. Make a role of your own.",
)
ROLE_IN_USE = define_problem(
    "role-in-use",
    409,
    "The role is in use",
    "`users` hold the role. Deleting it would take something from each of them in passing: give them another one "
    "first. GET /api/users with the role's slug as `role` lists them.",
)


def require_held(held: frozenset[str], wanted: Iterable[str], what: str) -> None:
    """Refuse to hand out, change or take away what the caller does not hold; `what` begins the sentence: who may.

    Raises:
        PermissionDeniedException: something of it is beyond them; the problem names it.
    """
    if lacking := sorted(set(wanted) - held):
        raise PermissionDeniedException(
            f"{what} more than you may do yourself.", problem=BEYOND_OWN, permissions=lacking
        )


class RoleService(Service[Role]):
    """Reads, makes and changes roles. `held` are the permissions of whoever asks: what is beyond them stays so."""

    class Repo(SQLAlchemyAsyncRepository[Role]):
        model_type = Role

    repository_type = Repo
    match_fields = ["slug"]

    async def make(
        self,
        *,
        name: str,
        slug: str | None,
        description: str | None,
        permissions: list[str],
        held: frozenset[str],
        catalogue: PermissionCatalogue,
    ) -> Role:
        """A role of the organization's own.

        Raises:
            ValidationFailedException: there is no permission of one of the names.
            PermissionDeniedException: it would permit more than `held`, or the plan allows no more roles.
            advanced_alchemy.exceptions.DuplicateKeyError: the slug is taken.
        """
        wanted = _known(permissions, catalogue)
        require_held(held, wanted, "The role permits")
        await use_quota(self.repository.session, "custom_roles")
        role = await self.create(
            Role(name=name, slug=slug or await self._free_slug(name), description=description, permissions=wanted)
        )
        await record_event(self.repository.session, "role.created", subject=role.id)
        return role

    async def change(
        self, role_id: UUID, changes: dict[str, Any], *, held: frozenset[str], catalogue: PermissionCatalogue
    ) -> Role:
        """Change what is in `changes`; `permissions`, if there, replaces all of them.

        Raises:
            ResourceNotFoundException: there is no such role.
            ConflictException: it is a built-in one.
            ValidationFailedException: there is no permission of one of the names.
            PermissionDeniedException: the role permits more than `held`, or would.
        """
        role = await self._own(role_id, held, catalogue)
        if "permissions" in changes:
            changes = changes | {"permissions": _known(changes["permissions"], catalogue)}
            require_held(held, changes["permissions"], "The role permits")
        changed = changed_fields(role, changes)
        for field in changed:
            setattr(role, field, changes[field])
        await self.flush()
        if changed:
            await record_event(self.repository.session, "role.updated", subject=role_id, payload={"fields": changed})
        return role

    async def remove(self, role_id: UUID, *, held: frozenset[str], catalogue: PermissionCatalogue) -> None:
        """Delete a role that nobody holds. Open invitations that would have given it are void.

        Raises:
            ResourceNotFoundException: there is no such role.
            ConflictException: it is a built-in one, or somebody holds it.
            PermissionDeniedException: it permits more than `held`.
        """
        role = await self._own(role_id, held, catalogue)
        session = self.repository.session
        # Nobody is given it meanwhile: a row of `user_role` takes a lock on the role that does not go with ours.
        users = await session.scalar(select(func.count()).where(UserRole.role_id == role_id))
        if users:
            raise ConflictException("The role is given to somebody.", problem=ROLE_IN_USE, users=users)
        await session.delete(role)
        await self.flush()
        await record_event(session, "role.deleted", subject=role_id)

    async def _own(self, role_id: UUID, held: frozenset[str], catalogue: PermissionCatalogue) -> Role:
        role: Role | None = await self.repository.session.scalar(
            select(Role).where(Role.id == role_id).with_for_update()
        )
        if role is None:
            raise ResourceNotFoundException("There is no such role.")
        if role.is_builtin:
            raise ConflictException(f"{role.name} is a built-in role.", problem=BUILTIN_ROLE)
        # What it grants now as well: whoever may do little could otherwise take much from others.
        require_held(held, catalogue.granted(role.slug, builtin=False, stored=role.permissions), "The role permits")
        return role

    async def _free_slug(self, name: str) -> str:
        slug = slugify(name) or "role"
        if await self.exists(slug=slug):
            # Two at once are still told apart by the constraint, and one gets a 409.
            slug = f"{slug[:54]}-{secrets.token_hex(4)}"
        return slug


def _known(permissions: list[str], catalogue: PermissionCatalogue) -> list[str]:
    """Those permissions, each once, in order.

    Raises:
        ValidationFailedException: there is none of one of the names.
    """
    message = "There is no such permission; GET /api/permissions lists them."
    if errors := [
        FieldError(field=f"permissions.{index}", message=message)
        for index, name in enumerate(permissions)
        if name not in catalogue.all
    ]:
        raise ValidationFailedException(errors=errors)
    return sorted(set(permissions))


async def seed_builtin_roles(session: AsyncSession) -> None:
    """Give a new organization its built-in roles."""
    await session.execute(
        insert(Role),
        [
            {"id": uuid7(), "slug": slug, "name": name, "description": description, "is_builtin": True}
            for slug, (name, description) in BUILTIN_ROLES.items()
        ],
    )


provide_roles = create_service_provider(
    RoleService,
    error_messages={
        "duplicate_key": "There is a role of that slug already.",
        "foreign_key": "The role is given to somebody.",
        "integrity": "The role cannot be changed like this.",
        "not_found": "There is no such role.",
    },
)
