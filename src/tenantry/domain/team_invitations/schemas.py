"""Invitations to teams, on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta

from tenantry.domain.identity.sessions.schemas import SigningIn
from tenantry.domain.teams.schemas import TeamRole
from tenantry.events.definition import Payload
from tenantry.kernel.schema import BaseStruct, Email, Password, ShortText, Slug

__all__ = (
    "InvitingTeam",
    "InvitingUser",
    "TeamInvitationAccept",
    "TeamInvitationCopy",
    "TeamInvitationCreate",
    "TeamInvitationCreated",
    "TeamInvitationDecline",
    "TeamInvitationMade",
    "TeamInvitationOf",
    "TeamInvitationRead",
)

Status = Literal["pending", "accepted", "declined", "revoked", "expired"]
Token = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_-]+$")]


class InvitingTeam(BaseStruct):
    id: UUID
    slug: str
    name: str


class InvitingUser(BaseStruct):
    id: UUID
    email: str
    name: str | None


class TeamInvitationRead(BaseStruct):
    id: UUID
    team: InvitingTeam
    email: str
    user_id: UUID | None
    """The user who was asked; null while the address has no account."""
    role: TeamRole
    organization_role: str | None
    """The slug of the role that somebody new gets in the organization."""
    status: Status
    invited_by: InvitingUser
    expires_at: datetime
    ended_at: datetime | None
    created_at: datetime
    updated_at: datetime


class TeamInvitationCreated(TeamInvitationRead):
    token: str | None
    """For somebody new, shown this once: with it they set a password. A user of the organization needs none."""


class TeamInvitationCreate(BaseStruct):
    email: Email
    role: TeamRole = "member"
    organization_role: Slug | None = None
    """Of somebody new: the slug of a role that permits no more than the caller may do; `member` when left out."""


class TeamInvitationAccept(SigningIn):
    token: Token
    password: Password
    name: ShortText | None = None


class TeamInvitationDecline(BaseStruct):
    token: Token


class TeamInvitationCopy(BaseStruct):
    """In the copy of a person's data. Without the address: of what they have sent, it is somebody else's."""

    id: UUID
    team_id: UUID
    user_id: UUID | None
    role: TeamRole
    status: Status
    expires_at: datetime
    ended_at: datetime | None
    created_at: datetime


class TeamInvitationMade(Payload):
    """Of the event: to which team and as what, and whom if they had an account."""

    team_id: UUID
    role: TeamRole
    user_id: UUID | None


class TeamInvitationOf(Payload):
    """Of the event: to which team."""

    team_id: UUID
