"""What a directory says of people and groups that accounts and teams have no column for."""

from __future__ import annotations

import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import TenantBase, length_check

__all__ = ("DirectoryGroup", "DirectoryUser")


class DirectoryUser(TenantBase):
    """An account as the organization's directory knows it. Accounts that it never wrote to have none of these."""

    __tablename__ = "directory_user"
    __table_args__ = (
        UniqueConstraint("user_id", name="uq_directory_user_user_id"),
        length_check("external_id", 255, minimum=1),
        length_check("given_name", 100, minimum=1),
        length_check("family_name", 100, minimum=1),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"))
    external_id: Mapped[str | None] = mapped_column(Text, index=True, info={"personal": "name"})
    """The directory's own id of the person. Unique there or not: RFC 7643 §3.1 leaves that to it."""
    given_name: Mapped[str | None] = mapped_column(Text, info={"personal": "name"})
    family_name: Mapped[str | None] = mapped_column(Text, info={"personal": "name"})
    removed_at: Mapped[datetime.datetime | None]
    """When it deleted the person: to it there is none any more, unless the account is let in again."""


class DirectoryGroup(TenantBase):
    """A team as the organization's directory knows it."""

    __tablename__ = "directory_group"
    __table_args__ = (
        UniqueConstraint("team_id", name="uq_directory_group_team_id"),
        length_check("external_id", 255, minimum=1),
    )

    team_id: Mapped[UUID] = mapped_column(ForeignKey("team.id", ondelete="CASCADE"))
    external_id: Mapped[str | None] = mapped_column(Text, index=True)
    is_provisioned: Mapped[bool] = mapped_column(default=False)
    """The directory made the team, so it may delete it; one that people made it only lets go of."""
    removed_at: Mapped[datetime.datetime | None]
    """When the directory let go of a team that people made."""
