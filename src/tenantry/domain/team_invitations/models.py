"""Being asked into a team."""

from __future__ import annotations

import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, LargeBinary, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tenantry.domain.identity.users.models import User
from tenantry.domain.roles.models import Role
from tenantry.domain.teams.models import TEAM_ROLES, Team
from tenantry.tenancy.models import TenantBase, length_check, one_of_check

__all__ = ("INVITATION_STATES", "TeamInvitation")

INVITATION_STATES = ("accepted", "declined", "revoked", "expired", "pending")


class TeamInvitation(TenantBase):
    """Somebody's being asked into a team: a user of the organization, or an address that has no account yet.

    A user answers as the one who is signed in, so there is no credential to steal. Somebody new has one, which makes
    the account, with a role in the organization, and puts them into the team.
    """

    __tablename__ = "team_invitation"
    __table_args__ = (
        UniqueConstraint("digest", name="uq_team_invitation_digest"),
        # Of those that have ended there may be many; open is one.
        Index(
            "uq_team_invitation_team_id_email",
            "team_id",
            "email",
            unique=True,
            postgresql_where=text("status = 'pending'"),
        ),
        length_check("email", 254, minimum=3),
        one_of_check("role", TEAM_ROLES),
        one_of_check("status", INVITATION_STATES),
        {"info": {"secret": True}},
    )

    team_id: Mapped[UUID] = mapped_column(ForeignKey("team.id", ondelete="CASCADE"), index=True)
    email: Mapped[str] = mapped_column(Text, info={"personal": "email"})
    """Normalized, in lower case."""
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"), index=True)
    """Who was asked, or has become somebody by it; None while they are nobody yet."""
    role: Mapped[str] = mapped_column(Text, default="member")
    """In the team."""
    role_id: Mapped[UUID | None] = mapped_column(ForeignKey("role.id", ondelete="CASCADE"), index=True)
    """In the organization, of somebody new. A role that is deleted takes the invitation with it."""
    invited_by_id: Mapped[UUID] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"), index=True)
    """Who vouches for it: it is void while they could not make it."""
    digest: Mapped[bytes | None] = mapped_column(LargeBinary)
    """SHA-256 of the credential, of somebody new."""
    status: Mapped[str] = mapped_column(Text, default="pending")
    expires_at: Mapped[datetime.datetime]
    ended_at: Mapped[datetime.datetime | None]
    """When it was accepted, declined, revoked, or found expired."""

    team: Mapped[Team] = relationship(lazy="raise", innerjoin=True)
    invited_by: Mapped[User] = relationship(lazy="raise", innerjoin=True, foreign_keys=[invited_by_id])
    organization_role: Mapped[Role | None] = relationship(lazy="raise")

    def end(self, status: str) -> None:
        """Let the invitation have ended, so; its credential is no good any more."""
        self.status, self.ended_at, self.digest = status, datetime.datetime.now(datetime.UTC), None
