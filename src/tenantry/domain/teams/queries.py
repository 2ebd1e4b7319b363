"""The hot reads of teams, and who is told of what happens to them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from sqlalchemy import Text, bindparam, cast, func, literal_column, select
from sqlalchemy.dialects.postgresql import aggregate_order_by

from tenantry.domain.tags.models import Tag
from tenantry.domain.tags.schemas import TagBrief
from tenantry.domain.teams.models import Team, team_tag
from tenantry.domain.teams.schemas import TeamRead
from tenantry.kernel.errors import ResourceNotFoundException
from tenantry.tenancy.hot import HotStatement

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.events.definition import RecordedEvent
    from tenantry.tenancy.connection import ScopedConnection

__all__ = ("handed_over", "read_team")

_tag = func.json_build_object(
    literal_column("'id'"), Tag.id, literal_column("'slug'"), Tag.slug, literal_column("'name'"), Tag.name
)
_tags = (
    select(cast(func.json_agg(aggregate_order_by(_tag, Tag.name)), Text))
    .join(team_tag, team_tag.c.tag_id == Tag.id)
    .where(team_tag.c.team_id == Team.id)
    .scalar_subquery()
)
_TEAM = HotStatement(
    select(
        Team.id,
        Team.slug,
        Team.name,
        Team.description,
        Team.is_active,
        Team.created_at,
        Team.updated_at,
        _tags.label("tags"),
    ).where(Team.id == bindparam("team_id"))
)
_decode_tags = msgspec.json.Decoder(list[TagBrief]).decode


async def read_team(connection: ScopedConnection, team_id: UUID) -> TeamRead:
    """One team with its tags, in one statement.

    Raises:
        ResourceNotFoundException: there is none.
    """
    row = await _TEAM.one(connection, team_id=team_id)
    if row is None:
        raise ResourceNotFoundException("There is no such team.")
    return TeamRead(
        id=row["id"],
        slug=row["slug"],
        name=row["name"],
        description=row["description"],
        is_active=row["is_active"],
        tags=_decode_tags(row["tags"]) if row["tags"] else [],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


async def handed_over(_: AsyncSession, event: RecordedEvent) -> Collection[UUID]:
    """Recipients: who owns the team now, and who did; the latter may not have been asked."""
    return {UUID(event.payload["owner_id"]), *(UUID(each) for each in event.payload["former_owner_ids"])}
