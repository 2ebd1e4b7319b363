"""A machine, as somebody who acts."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import ForeignKey, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tenantry.domain.roles.models import Role
from tenantry.tenancy.models import TenantBase, length_check

__all__ = ("ServiceAccount", "ServiceAccountRole")


class ServiceAccountRole(TenantBase):
    """A role that a service account holds."""

    __tablename__ = "service_account_role"
    __table_args__ = (
        UniqueConstraint("service_account_id", "role_id", name="uq_service_account_role_service_account_id_role_id"),
    )

    service_account_id: Mapped[UUID] = mapped_column(ForeignKey("service_account.id", ondelete="CASCADE"))
    role_id: Mapped[UUID] = mapped_column(ForeignKey("role.id", ondelete="RESTRICT"), index=True)

    role: Mapped[Role] = relationship(lazy="joined", innerjoin=True)


class ServiceAccount(TenantBase):
    """A principal without password, sessions or e-mail address. It acts by its API keys, and ends with them."""

    __tablename__ = "service_account"
    __table_args__ = (
        UniqueConstraint("name", name="uq_service_account_name"),
        length_check("name", 100, minimum=1),
        length_check("description", 500),
    )

    name: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    is_active: Mapped[bool] = mapped_column(default=True)
    """Otherwise its keys are refused; they are good again with it."""

    roles: Mapped[list[ServiceAccountRole]] = relationship(
        lazy="selectin", cascade="all, delete-orphan", passive_deletes=True
    )
