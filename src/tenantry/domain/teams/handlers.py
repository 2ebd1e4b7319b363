"""What becomes of the teams of somebody who is shut out or erased."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import exists, select
from sqlalchemy.orm import aliased, load_only, raiseload

from tenantry.domain.identity.users.models import User
from tenantry.domain.teams.models import Team, TeamMember
from tenantry.events.record import record_event
from tenantry.kernel.errors import ConflictException, ValidationFailedException, define_problem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ("ONLY_TEAM_OWNER", "hand_over_teams")

ONLY_TEAM_OWNER = define_problem(
    "only-team-owner",
    409,
    "The only owner of a team",
    "The user alone owns the `teams` that are listed. Say who is to own them (`successorId`), make somebody else an "
    "owner, or delete them.",
)


async def hand_over_teams(session: AsyncSession, user_id: UUID, successor_id: UUID | None) -> None:
    """Make the successor the owner of the teams that the user alone owns; without one, refuse if there are any.

    Raises:
        ConflictException: there are, and nobody to hand them to.
        ValidationFailedException: the successor is no active user, or the user themselves.
    """
    if successor_id is not None:
        # Held until the end: whoever is shut out at the same moment is no successor.
        wanted = select(User.id).where(User.id == successor_id, User.is_active, User.id != user_id)
        if await session.scalar(wanted.with_for_update(read=True)) is None:
            raise ValidationFailedException.of("successorId", "Expected the id of another active user.")
    teams = await _owned_alone(session, user_id)
    if not teams:
        return
    if successor_id is None:
        raise ConflictException(
            "The user is the only owner of a team.",
            problem=ONLY_TEAM_OWNER,
            teams=[{"id": str(team.id), "slug": team.slug, "name": team.name} for team in teams],
        )
    for team in teams:
        await _hand_over(session, team, user_id, successor_id)


async def _owned_alone(session: AsyncSession, user_id: UUID) -> Sequence[Team]:
    other = aliased(TeamMember)
    owned = (
        select(Team.id)
        .join(TeamMember, TeamMember.team_id == Team.id)
        .where(TeamMember.user_id == user_id, TeamMember.role == "owner")
        # As the members' service does, so that of two owners who leave at once the second finds itself the last. Not
        # FOR UPDATE: that would wait for whoever joins the team, who may be waiting for the user's row.
        .with_for_update(of=Team, key_share=True)
        .order_by(Team.id)
    )
    held = list(await session.scalars(owned))
    # Asked behind the locks, by a statement of its own: one that began before would not see what they waited for.
    alone = (
        select(Team)
        .options(load_only(Team.slug, Team.name), raiseload(Team.tags))
        .where(
            Team.id.in_(held),
            ~exists().where(
                other.team_id == Team.id,
                other.role == "owner",
                other.user_id != user_id,
                other.user_id == User.id,
                User.is_active,
            ),
        )
        .order_by(Team.name, Team.id)
    )
    return list(await session.scalars(alone))


async def _hand_over(session: AsyncSession, team: Team, user_id: UUID, successor_id: UUID) -> None:
    members = {
        member.user_id: member
        for member in await session.scalars(
            select(TeamMember).where(TeamMember.team_id == team.id, TeamMember.user_id.in_((user_id, successor_id)))
        )
    }
    members[user_id].role = "admin"
    successor = members.get(successor_id)
    if successor is None:
        session.add(TeamMember(team_id=team.id, user_id=successor_id, role="owner"))
    else:
        successor.role = "owner"
    await session.flush()
    if successor is None:
        placed = {"user_id": successor_id, "role": "owner"}
        await record_event(session, "team.member_added", subject=team.id, payload=placed)
    await record_event(
        session,
        "team.ownership_transferred",
        subject=team.id,
        payload={"owner_id": successor_id, "former_owner_ids": [user_id]},
    )
