"""Teams of one organization."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import func, inspect, select
from sqlalchemy.orm import joinedload, load_only, selectinload
from sqlalchemy.orm.attributes import set_committed_value

from tenantry.domain.identity.users.models import User
from tenantry.domain.tags.models import Tag
from tenantry.domain.tags.service import tag_slug
from tenantry.domain.teams.models import Team, TeamMember
from tenantry.events.record import record_event, user_actor
from tenantry.kernel.errors import (
    ConflictException,
    PermissionDeniedException,
    ResourceNotFoundException,
    ValidationFailedException,
    define_problem,
)
from tenantry.kernel.service import Service, changed_fields, create_service_provider
from tenantry.kernel.text import slugify
from tenantry.tenancy.quotas import use_quota

if TYPE_CHECKING:
    from uuid import UUID

    from tenantry.tenancy.guards import Principal

__all__ = (
    "LAST_TEAM_OWNER",
    "TeamMemberService",
    "TeamService",
    "provide_members",
    "provide_teams",
    "require_team_owner",
)

LAST_TEAM_OWNER = define_problem(
    "last-team-owner", 409, "The team's last owner", "A team always has an active owner. Make somebody else one first."
)


class TeamService(Service[Team]):
    """Teams and their tags."""

    class Repo(SQLAlchemyAsyncRepository[Team]):
        model_type = Team

    repository_type = Repo
    match_fields = ["slug"]

    async def found(
        self, *, name: str, slug: str | None, description: str | None, tags: list[str], owner_id: UUID | None
    ) -> Team:
        """A new team, owned by `owner_id`; by nobody where a directory makes it, and says who is in it.

        Raises:
            PermissionDeniedException: the plan allows no more teams, or no more tags.
            ValidationFailedException: nothing of the name or of a tag can be made a slug.
            advanced_alchemy.exceptions.DuplicateKeyError: the slug is taken.
        """
        carried = await self._tags(tags)
        fresh = _fresh(carried)
        await use_quota(self.repository.session, "teams")
        team = await self.create(
            Team(
                name=name,
                slug=slug or await self._free_slug(name),
                description=description,
                tags=carried,
                members=[TeamMember(user_id=owner_id, role="owner")] if owner_id is not None else [],
            )
        )
        await self._record_tags(fresh)
        await record_event(
            self.repository.session,
            "team.created",
            subject=team.id,
            payload={"owner_id": owner_id, "tag_ids": [tag.id for tag in carried]},
        )
        return team

    async def change(self, team_id: UUID, changes: dict[str, Any]) -> Team:
        """Change what is in `changes`; `tags`, if there, replaces all of them.

        Raises:
            PermissionDeniedException: the plan allows no more tags.
            advanced_alchemy.exceptions.NotFoundError: there is no such team.
            advanced_alchemy.exceptions.DuplicateKeyError: the slug is taken.
        """
        tags = changes.pop("tags", None)
        team = await self.get(team_id)
        changed = changed_fields(team, changes)
        fresh: list[Tag] = []
        if tags is not None:
            carried = await self._tags(tags)
            fresh = _fresh(carried)
            if {tag.slug for tag in carried} != {tag.slug for tag in team.tags}:
                changed.append("tags")
            team.tags = carried
        for name, value in changes.items():
            setattr(team, name, value)
        await self.flush()
        await self._record_tags(fresh)
        if changed:
            await record_event(self.repository.session, "team.updated", subject=team_id, payload={"fields": changed})
        return team

    async def remove(self, team_id: UUID) -> None:
        """Delete a team.

        Raises:
            advanced_alchemy.exceptions.NotFoundError: there is no such team.
        """
        await self.delete(team_id)
        await record_event(self.repository.session, "team.deleted", subject=team_id)

    async def require_manager(self, team_id: UUID, principal: Principal) -> bool:
        """Let pass who may run every team, or owns or administers this one; whether they may do what its owners may.

        Raises:
            PermissionDeniedException: the caller does neither.
            advanced_alchemy.exceptions.NotFoundError: there is no such team.
        """
        if "teams:manage" in principal.permissions:
            return True
        role = await self.repository.session.scalar(
            select(TeamMember.role).where(TeamMember.team_id == team_id, TeamMember.user_id == principal.id)
        )
        if role is None:
            # Who may see teams may know that it exists; who may not has been refused by a guard.
            await self.get(team_id)
        if role not in {"owner", "admin"}:
            raise PermissionDeniedException("Only the team's owners and administrators may do this.")
        owns: bool = role == "owner"
        return owns

    async def _tags(self, names: list[str]) -> list[Tag]:
        session = self.repository.session
        wanted = {tag_slug(name, field="tags"): name for name in names}
        found = [await Tag.as_unique_async(session, name=name, slug=slug) for slug, name in sorted(wanted.items())]
        if fresh := _fresh(found):
            await use_quota(session, "tags", len(fresh))
        return found

    async def _record_tags(self, fresh: list[Tag]) -> None:
        for tag in fresh:
            await record_event(self.repository.session, "tag.created", subject=tag.id)

    async def _free_slug(self, name: str) -> str:
        slug = slugify(name) or "team"
        if await self.exists(slug=slug):
            # Another team of that name. Two at once are still told apart by the constraint, and one gets a 409.
            slug = f"{slug[:54]}-{secrets.token_hex(4)}"
        return slug


def require_team_owner(as_owner: bool, *roles: str) -> None:
    """Refuse an owner's role to whoever is none: an administrator would otherwise be one with a single request.

    Raises:
        PermissionDeniedException: one of the roles is an owner's, and not `as_owner`.
    """
    if "owner" in roles and not as_owner:
        raise PermissionDeniedException("Only the team's owners may do this to an owner, or make one.")


def _fresh(tags: list[Tag]) -> list[Tag]:
    """Those that are to be made with the next flush."""
    return [tag for tag in tags if not inspect(tag).persistent]


class TeamMemberService(Service[TeamMember]):
    """Who is in a team."""

    class Repo(SQLAlchemyAsyncRepository[TeamMember]):
        model_type = TeamMember

    repository_type = Repo

    async def join(
        self, team_id: UUID, user_id: UUID, role: str, *, as_owner: bool, themselves: bool = False
    ) -> TeamMember:
        """Put a user into a team; `themselves` if it is the user's own doing, before they are signed in.

        Raises:
            PermissionDeniedException: an owner is to be made, and not `as_owner`.
            ValidationFailedException: there is no such user, or only a deactivated one.
            advanced_alchemy.exceptions.DuplicateKeyError: the user is in the team.
        """
        require_team_owner(as_owner, role)
        user = await self.repository.session.get(User, user_id)
        if user is None or not user.is_active:
            raise ValidationFailedException.of("userId", "Expected the id of an active user of this organization.")
        member = await self.create(TeamMember(team_id=team_id, user_id=user_id, role=role))
        set_committed_value(member, "user", user)
        await record_event(
            self.repository.session,
            "team.member_added",
            subject=team_id,
            payload={"user_id": user_id, "role": role},
            actor=user_actor(user_id) if themselves else None,
        )
        return member

    async def member(self, team_id: UUID, user_id: UUID) -> TeamMember:
        """One member.

        Raises:
            ResourceNotFoundException: the user is not in the team.
        """
        found = await self.get_one_or_none(team_id=team_id, user_id=user_id)
        if found is None:
            raise ResourceNotFoundException("There is no such member of the team.")
        return found

    async def assign_role(self, team_id: UUID, user_id: UUID, role: str, *, as_owner: bool) -> TeamMember:
        """Give a member another role.

        Raises:
            ResourceNotFoundException: the user is not in the team.
            PermissionDeniedException: an owner is to be made or demoted, and not `as_owner`.
            ConflictException: the team would be left without an owner.
        """
        await self._lock(team_id)
        member = await self.member(team_id, user_id)
        require_team_owner(as_owner, role, member.role)
        if member.role == "owner" and role != "owner":
            await self._require_another_owner(team_id, user_id)
        before, member.role = member.role, role
        await self.flush()
        if role != before:
            await self._record("team.member_role_changed", team_id, user_id=user_id, role=role)
        return member

    async def leave(self, team_id: UUID, user_id: UUID, *, as_owner: bool) -> None:
        """Take a member out.

        Raises:
            ResourceNotFoundException: the user is not in the team.
            PermissionDeniedException: it is an owner, and not `as_owner`.
            ConflictException: the team would be left without an owner.
        """
        await self._lock(team_id)
        member = await self.member(team_id, user_id)
        require_team_owner(as_owner, member.role)
        if member.role == "owner":
            await self._require_another_owner(team_id, user_id)
        await self.repository.session.delete(member)
        await self.flush()
        await self._record("team.member_removed", team_id, user_id=user_id)

    async def transfer_ownership(self, team_id: UUID, user_id: UUID, *, by: Principal) -> TeamMember:
        """Make a member the owner, and whoever hands over an administrator.

        That is `by`, if they own the team; who manages all teams and does not own this one takes it from all who do.

        Raises:
            PermissionDeniedException: `by` neither owns the team nor manages all.
            ValidationFailedException: the user is no member, deactivated, or is `by` and owns the team already.
        """
        await self._lock(team_id)
        session = self.repository.session
        member = await self.get_one_or_none(team_id=team_id, user_id=user_id)
        if member is None or not await session.scalar(select(User.is_active).where(User.id == user_id)):
            raise ValidationFailedException.of("userId", "Expected the id of an active member of the team.")
        owners = list(
            await session.scalars(
                select(TeamMember)
                .where(TeamMember.team_id == team_id, TeamMember.role == "owner")
                .order_by(TeamMember.user_id)
            )
        )
        leaving = [each for each in owners if each.user_id == by.id]
        if not leaving:
            # Asked here, behind the lock: of two who hand over at once the second is no owner any more.
            if "teams:manage" not in by.permissions:
                raise PermissionDeniedException("Only the team's owners may hand it over.")
            leaving = owners
        if [each.user_id for each in leaving] == [user_id]:
            raise ValidationFailedException.of("userId", "Expected somebody who does not own the team already.")
        former = [each for each in leaving if each.user_id != user_id]
        for each in former:
            each.role = "admin"
        member.role = "owner"
        await self.flush()
        await self._record(
            "team.ownership_transferred",
            team_id,
            owner_id=user_id,
            former_owner_ids=[each.user_id for each in former],
        )
        return member

    async def _record(self, name: str, team_id: UUID, **payload: Any) -> None:
        await record_event(self.repository.session, name, subject=team_id, payload=payload)

    async def _lock(self, team_id: UUID) -> None:
        # Two owners who leave at the same moment go one after the other, so that the second finds itself the last.
        await self.repository.session.execute(select(Team.id).where(Team.id == team_id).with_for_update())

    async def _require_another_owner(self, team_id: UUID, user_id: UUID) -> None:
        others = await self.repository.session.scalar(
            select(func.count())
            .select_from(TeamMember)
            .join(User, User.id == TeamMember.user_id)
            .where(
                TeamMember.team_id == team_id,
                TeamMember.user_id != user_id,
                TeamMember.role == "owner",
                User.is_active,
            )
        )
        if not others:
            raise ConflictException("This is the team's last owner.", problem=LAST_TEAM_OWNER)


provide_teams = create_service_provider(
    TeamService,
    load=[selectinload(Team.tags).options(load_only(Tag.slug, Tag.name))],
    uniquify=True,
    error_messages={
        "duplicate_key": "There is a team of that slug already.",
        "integrity": "The team cannot be changed like this.",
        "not_found": "There is no such team.",
    },
)

provide_members = create_service_provider(
    TeamMemberService,
    load=[joinedload(TeamMember.user, innerjoin=True).options(load_only(User.email, User.name))],
    error_messages={
        "duplicate_key": "The user is in the team already.",
        "integrity": "The member cannot be changed like this.",
        "not_found": "There is no such member of the team.",
    },
)
