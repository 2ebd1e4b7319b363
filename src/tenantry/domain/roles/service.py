"""Roles of one organization."""

from __future__ import annotations

from typing import TYPE_CHECKING

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import insert
from uuid_utils.compat import uuid7

from tenantry.domain.roles.models import BUILTIN_ROLES, Role
from tenantry.kernel.service import Service

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ("RoleService", "seed_builtin_roles")


class RoleService(Service[Role]):
    """Reads and resolves roles."""

    class Repo(SQLAlchemyAsyncRepository[Role]):
        model_type = Role

    repository_type = Repo
    match_fields = ["slug"]


async def seed_builtin_roles(session: AsyncSession) -> None:
    """Give a new organization its built-in roles."""
    await session.execute(
        insert(Role),
        [
            {"id": uuid7(), "slug": slug, "name": name, "description": description, "is_builtin": True}
            for slug, (name, description) in BUILTIN_ROLES.items()
        ],
    )
