"""Roles: named sets of permissions."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import ForeignKey, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tenantry.tenancy.models import SlugKey, TenantBase, length_check

__all__ = ("BUILTIN_ROLES", "Role", "UserRole")

BUILTIN_ROLES = {
    "owner": ("Owner", "May do everything, and is the last to go."),
    "admin": ("Administrator", "Runs the organization."),
    "member": ("Member", "Works in the organization."),
    "viewer": ("Viewer", "Looks, and changes nothing."),
}


class Role(SlugKey, TenantBase):
    """A role of this organization.

    What a built-in role grants follows from the features' manifests, so a new feature needs no change of data in any
    tenant; `permissions` is what a role of the organization's own making grants.
    """

    __tablename__ = "role"
    __table_args__ = (
        *SlugKey.constraints("role"),
        length_check("name", 100, minimum=1),
        length_check("description", 500),
    )

    name: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    is_builtin: Mapped[bool] = mapped_column(default=False)
    permissions: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list, server_default=text("'{}'"))


class UserRole(TenantBase):
    """A role that a user holds."""

    __tablename__ = "user_role"
    __table_args__ = (UniqueConstraint("user_id", "role_id", name="uq_user_role_user_id_role_id"),)

    user_id: Mapped[UUID] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"))
    role_id: Mapped[UUID] = mapped_column(ForeignKey("role.id", ondelete="RESTRICT"), index=True)

    role: Mapped[Role] = relationship(lazy="joined", innerjoin=True)
