"""Asking somebody into a team, and their answer."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import ColumnElement, Select, func, select, update
from sqlalchemy.orm import joinedload, load_only

from tenantry.domain.identity.users.authority import require_may_grant, standing_of
from tenantry.domain.identity.users.models import User
from tenantry.domain.identity.users.service import UserService
from tenantry.domain.roles.models import Role
from tenantry.domain.team_invitations.models import TeamInvitation
from tenantry.domain.teams.models import Team, TeamMember
from tenantry.domain.teams.service import TeamService, provide_members, require_team_owner
from tenantry.events.record import record_event
from tenantry.kernel.errors import (
    ConflictException,
    PermissionDeniedException,
    ResourceNotFoundException,
    ValidationFailedException,
    define_problem,
)
from tenantry.kernel.schema import normalize_email
from tenantry.kernel.security import TEAM_INVITATION, Credential
from tenantry.kernel.service import Service, create_service_provider

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.domain.roles.catalogue import PermissionCatalogue
    from tenantry.tenancy.guards import Principal

__all__ = (
    "TEAM_INVITATION_ENDED",
    "TeamInvitationService",
    "is_vouched_for",
    "provide_team_invitations",
    "record_made",
)

TEAM_INVITATION_ENDED = define_problem(
    "team-invitation-ended",
    409,
    "The invitation has ended",
    "The invitation was accepted, declined or taken back, it has expired, or whoever made it may not "
    "make it any more. `state` says which of these the invitation knows of itself.",
)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class TeamInvitationService(Service[TeamInvitation]):
    """Invitations to teams, made by those who run them and answered by users who are signed in."""

    class Repo(SQLAlchemyAsyncRepository[TeamInvitation]):
        model_type = TeamInvitation

    repository_type = Repo

    async def invite(
        self,
        team_id: UUID,
        *,
        email: str,
        role: str,
        organization_role: str | None,
        by: Principal,
        as_owner: bool,
        catalogue: PermissionCatalogue,
        ttl: int,
        tenant_id: UUID,
    ) -> tuple[TeamInvitation, str | None]:
        """Ask whoever has the address into a team; the credential, if that is nobody of the organization yet.

        Args:
            as_owner: whether `by` may do what the team's owners may.
            ttl: how long it can be answered, in seconds.

        Raises:
            ValidationFailedException: it is no address, or that of a deactivated account; there is no such role, or
                somebody who has roles was to be given one.
            PermissionDeniedException: an owner was to be made, and not `as_owner`; somebody new was to be added, and
                `by` may not add people, or not with that role.
            ConflictException: the user is in the team, or has an open invitation to it.
            advanced_alchemy.exceptions.DuplicateKeyError: the address was asked by somebody else at the same moment.
        """
        require_team_owner(as_owner, role)
        email = normalize_email(email)
        session = self.repository.session
        user = await session.scalar(select(User).where(User.email == email))
        given: Role | None = None
        if user is not None:
            await self._check_user(team_id, user, organization_role)
        else:
            [given] = await UserService(session=session).roles_by_slug(
                [organization_role or "member"], field="organizationRole"
            )
            _require_may_add(by, given, catalogue)
        await session.execute(
            update(TeamInvitation)
            .where(
                TeamInvitation.team_id == team_id,
                TeamInvitation.email == email,
                TeamInvitation.status == "pending",
                TeamInvitation.expires_at <= func.now(),
            )
            .values(status="expired", ended_at=func.now(), digest=None)
            .execution_options(synchronize_session=False)
        )
        token, digest = (None, None) if user is not None else Credential.new(TEAM_INVITATION, tenant_id)
        made = await self.create(
            TeamInvitation(
                team_id=team_id,
                email=email,
                user_id=user.id if user is not None else None,
                role=role,
                role_id=given.id if given is not None else None,
                invited_by_id=by.id,
                digest=digest,
                expires_at=_now() + datetime.timedelta(seconds=ttl),
            )
        )
        await record_made(session, "created", made)
        return await self._loaded(made.id), token

    async def renew(
        self,
        invitation_id: UUID,
        *,
        by: Principal,
        as_owner: bool,
        catalogue: PermissionCatalogue,
        ttl: int,
        tenant_id: UUID,
    ) -> tuple[TeamInvitation, str | None]:
        """Let an invitation live anew, with another credential if it has one; an expired one as well.

        The caller vouches for it from now on, and must be somebody who could have made it. Where the address has got
        an account meanwhile, it is that user who is asked.

        Raises:
            ResourceNotFoundException: there is none.
            ConflictException: it was answered or taken back.
            PermissionDeniedException: as `invite`.
        """
        session = self.repository.session
        invitation = await self._locked(TeamInvitation.id == invitation_id)
        if invitation.status not in {"pending", "expired"}:
            raise _ended(invitation)
        require_team_owner(as_owner, invitation.role)
        token = None
        if invitation.user_id is None:
            user = await session.scalar(select(User).where(User.email == invitation.email))
            if user is not None:
                await self._check_user(invitation.team_id, user, None)
                invitation.user_id, invitation.role_id, invitation.digest = user.id, None, None
            else:
                given = await session.get(Role, invitation.role_id) if invitation.role_id is not None else None
                if given is None:
                    raise _ended(invitation)
                _require_may_add(by, given, catalogue)
                token, invitation.digest = Credential.new(TEAM_INVITATION, tenant_id)
        invitation.status, invitation.ended_at, invitation.invited_by_id = "pending", None, by.id
        invitation.expires_at = _now() + datetime.timedelta(seconds=ttl)
        await self.flush()
        await record_made(session, "resent", invitation)
        return await self._loaded(invitation_id), token

    async def revoke(self, invitation_id: UUID) -> None:
        """Take an invitation back.

        Raises:
            ResourceNotFoundException: there is none.
            ConflictException: it was answered or taken back.
        """
        invitation = await self._locked(TeamInvitation.id == invitation_id)
        if invitation.status not in {"pending", "expired"}:
            raise _ended(invitation)
        await self._end(invitation, "revoked")

    async def accept(self, invitation_id: UUID, user_id: UUID, catalogue: PermissionCatalogue) -> TeamMember:
        """Join the team, as the user who was asked; their place in it.

        Raises:
            ResourceNotFoundException: this user was asked nothing of the kind.
            ConflictException: it has ended, or whoever made it could not make it any more.
            advanced_alchemy.exceptions.DuplicateKeyError: they are in the team already.
        """
        invitation = await self._answered(invitation_id, user_id)
        if not await is_vouched_for(self.repository.session, invitation, None, catalogue):
            raise _ended(invitation)
        members = await provide_members(db_session=self.repository.session)
        member: TeamMember = await members.join(invitation.team_id, user_id, invitation.role, as_owner=True)
        invitation.end("accepted")
        await self.flush()
        await record_made(self.repository.session, "accepted", invitation)
        return member

    async def decline(self, invitation_id: UUID, user_id: UUID) -> None:
        """Stay out, as the user who was asked.

        Raises:
            ResourceNotFoundException: this user was asked nothing of the kind.
            ConflictException: it has ended.
        """
        await self._end(await self._answered(invitation_id, user_id), "declined")

    async def _answered(self, invitation_id: UUID, user_id: UUID) -> TeamInvitation:
        invitation = await self._locked(TeamInvitation.id == invitation_id, TeamInvitation.user_id == user_id)
        if invitation.status != "pending" or invitation.expires_at <= _now():
            raise _ended(invitation)
        return invitation

    async def _locked(self, *where: ColumnElement[bool]) -> TeamInvitation:
        # Whoever answers and whoever takes it back go one after the other.
        statement: Select[TeamInvitation] = (
            select(TeamInvitation)
            .where(*where)
            .with_for_update()
            # What was read before waiting need not be so any more.
            .execution_options(populate_existing=True)
        )
        found: TeamInvitation | None = await self.repository.session.scalar(statement)
        if found is None:
            raise ResourceNotFoundException("There is no such invitation.")
        return found

    async def _check_user(self, team_id: UUID, user: User, organization_role: str | None) -> None:
        if not user.is_active:
            raise ValidationFailedException.of("email", "Expected an address without an account, or of an active user.")
        if organization_role is not None:
            raise ValidationFailedException.of(
                "organizationRole", "Expected nothing: the address has an account, which has its roles."
            )
        if await self.repository.session.scalar(
            select(TeamMember.id).where(TeamMember.team_id == team_id, TeamMember.user_id == user.id)
        ):
            raise ConflictException("The user is in the team already.")

    async def _end(self, invitation: TeamInvitation, status: str) -> None:
        invitation.end(status)
        await self.flush()
        await record_event(
            self.repository.session,
            f"team_invitation.{status}",
            subject=invitation.id,
            payload={"team_id": invitation.team_id},
        )

    async def _loaded(self, invitation_id: UUID) -> TeamInvitation:
        # With what belongs to it, which an instance that was just made has not.
        return await self.get(invitation_id, execution_options={"populate_existing": True})


def _require_may_add(by: Principal, role: Role, catalogue: PermissionCatalogue) -> None:
    if "users:write" not in by.permissions:
        raise PermissionDeniedException(
            "There is no user with this address, and to add people the permission 'users:write' is needed.",
            permission="users:write",
        )
    require_may_grant(by, [role], catalogue)


async def is_vouched_for(
    session: AsyncSession, invitation: TeamInvitation, role: Role | None, catalogue: PermissionCatalogue
) -> bool:
    """Whether whoever made the invitation could still make it, with this role in the organization for somebody new.

    Somebody who was demoted or has left would otherwise have left doors open behind them.
    """
    inviter = await standing_of(session, invitation.invited_by_id, catalogue)
    if inviter is None:
        return False
    try:
        as_owner = await TeamService(session=session).require_manager(invitation.team_id, inviter)
        require_team_owner(as_owner, invitation.role)
        if role is not None:
            _require_may_add(inviter, role, catalogue)
    except PermissionDeniedException:
        return False
    return True


def _ended(invitation: TeamInvitation) -> ConflictException:
    return ConflictException(
        "The invitation has ended.",
        problem=TEAM_INVITATION_ENDED,
        state=invitation.status,
    )


async def record_made(
    session: AsyncSession, verb: str, invitation: TeamInvitation, *, actor: str | None = None
) -> None:
    """Record what has become of an invitation, with whom it is about."""
    await record_event(
        session,
        f"team_invitation.{verb}",
        subject=invitation.id,
        payload={"team_id": invitation.team_id, "role": invitation.role, "user_id": invitation.user_id},
        actor=actor,
    )


provide_team_invitations = create_service_provider(
    TeamInvitationService,
    load=[
        joinedload(TeamInvitation.team, innerjoin=True).options(load_only(Team.slug, Team.name)),
        joinedload(TeamInvitation.invited_by, innerjoin=True).options(load_only(User.email, User.name)),
        joinedload(TeamInvitation.organization_role).options(load_only(Role.slug)),
    ],
    error_messages={
        "duplicate_key": "There is an open invitation for this address already; send it again.",
        "integrity": "The invitation cannot be made like this.",
        "not_found": "There is no such invitation.",
    },
)
