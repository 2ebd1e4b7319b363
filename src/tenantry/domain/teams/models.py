"""Groups of people."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Column, ForeignKey, Table, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tenantry.domain.identity.users.models import User
from tenantry.domain.tags.models import Tag
from tenantry.tenancy.models import SlugKey, TenantBase, length_check, one_of_check

__all__ = ("TEAM_ROLES", "Team", "TeamMember", "team_tag")

TEAM_ROLES = ("owner", "admin", "member")

team_tag = Table(
    "team_tag",
    TenantBase.metadata,
    Column("team_id", ForeignKey("team.id", ondelete="CASCADE"), primary_key=True),
    Column("tag_id", ForeignKey("tag.id", ondelete="CASCADE"), primary_key=True, index=True),
)


class Team(SlugKey, TenantBase):
    """A team of the organization."""

    __tablename__ = "team"
    __table_args__ = (
        *SlugKey.constraints("team"),
        length_check("name", 100, minimum=1),
        length_check("description", 500),
    )

    name: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    is_active: Mapped[bool] = mapped_column(default=True)

    members: Mapped[list[TeamMember]] = relationship(
        back_populates="team", lazy="raise", cascade="all, delete-orphan", passive_deletes=True
    )
    tags: Mapped[list[Tag]] = relationship(
        secondary=team_tag, lazy="selectin", order_by="Tag.name", passive_deletes=True
    )


class TeamMember(TenantBase):
    """A user's place in a team."""

    __tablename__ = "team_member"
    __table_args__ = (
        UniqueConstraint("team_id", "user_id", name="uq_team_member_team_id_user_id"),
        one_of_check("role", TEAM_ROLES),
    )

    team_id: Mapped[UUID] = mapped_column(ForeignKey("team.id", ondelete="CASCADE"))
    user_id: Mapped[UUID] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"), index=True)
    role: Mapped[str] = mapped_column(Text, default="member")

    team: Mapped[Team] = relationship(back_populates="members", lazy="raise")
    user: Mapped[User] = relationship(lazy="raise", innerjoin=True)
