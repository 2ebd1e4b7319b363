"""Operators of the platform in the organization: grants, requests for them, and who came in."""

from __future__ import annotations

import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import TenantBase, length_check, one_of_check

__all__ = (
    "MOST_HOURS",
    "REQUEST_STATES",
    "OperatorAccessGrant",
    "OperatorAccessNotice",
    "OperatorAccessRequest",
    "OperatorAccessSession",
)

MOST_HOURS = 72
"""For which a grant is good: a weekend, and somebody to look into it after it."""
REQUEST_STATES = ("accepted", "declined", "expired", "pending")


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class OperatorAccessGrant(TenantBase):
    """The organization's consent. Never deleted: it says who has let in whom.

    In no clone, export or import: a copy of the organization has granted nothing.
    """

    __tablename__ = "operator_access_grant"
    __table_args__ = (
        length_check("operator_email", 254, minimum=3),
        length_check("reason", 500, minimum=1),
        {"info": {"secret": True}},
    )

    granted_by_id: Mapped[UUID | None] = mapped_column(ForeignKey("user_account.id", ondelete="SET NULL"), index=True)
    """None once they were erased."""
    operator_id: Mapped[UUID | None]
    """For this one alone, who has asked. No foreign key: operators are the control plane's."""
    operator_email: Mapped[str | None] = mapped_column(Text)
    """For whom this is the operator's account; None, and no id either: for every operator."""
    can_write: Mapped[bool] = mapped_column(default=False)
    reason: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime.datetime]
    revoked_at: Mapped[datetime.datetime | None]
    revoked_by_id: Mapped[UUID | None] = mapped_column(ForeignKey("user_account.id", ondelete="SET NULL"), index=True)

    @property
    def access(self) -> Literal["read", "write"]:
        return "write" if self.can_write else "read"

    @property
    def status(self) -> Literal["active", "revoked", "expired"]:
        if self.revoked_at is not None:
            return "revoked"
        return "active" if self.expires_at > _now() else "expired"


class OperatorAccessRequest(TenantBase):
    """An operator's asking for consent; one of each operator's is open at a time."""

    __tablename__ = "operator_access_request"
    __table_args__ = (
        Index(
            "uq_operator_access_request_operator_id",
            "operator_id",
            unique=True,
            postgresql_where=text("status = 'pending'"),
        ),
        CheckConstraint(f"hours BETWEEN 1 AND {MOST_HOURS}", name="hours_range"),
        length_check("operator_name", 200, minimum=1),
        length_check("reason", 500, minimum=1),
        one_of_check("status", REQUEST_STATES),
        {"info": {"secret": True}},
    )

    operator_id: Mapped[UUID]
    operator_name: Mapped[str] = mapped_column(Text)
    can_write: Mapped[bool] = mapped_column(default=False)
    hours: Mapped[int]
    reason: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text, default="pending")
    answered_at: Mapped[datetime.datetime | None]
    answered_by_id: Mapped[UUID | None] = mapped_column(ForeignKey("user_account.id", ondelete="SET NULL"), index=True)
    grant_id: Mapped[UUID | None] = mapped_column(ForeignKey("operator_access_grant.id"))
    """What came of it."""

    @property
    def access(self) -> Literal["read", "write"]:
        return "write" if self.can_write else "read"


class OperatorAccessSession(TenantBase):
    """An operator who was let in. Good for requests while it is neither closed nor over, here and in the control plane.

    Never deleted, for the sake of the name in it: the trail has ids alone.
    """

    __tablename__ = "operator_access_session"
    __table_args__ = (
        one_of_check("way", ("shell", "api")),
        length_check("operator_name", 200, minimum=1),
        length_check("reason", 500, minimum=1),
        {"info": {"secret": True}},
    )

    operator_id: Mapped[UUID | None]
    """None of somebody at the command line, of whom the system's account is all that is known."""
    operator_name: Mapped[str] = mapped_column(Text)
    grant_id: Mapped[UUID | None] = mapped_column(ForeignKey("operator_access_grant.id"), index=True)
    """None: without consent, the owners were told."""
    way: Mapped[str] = mapped_column(Text)
    can_write: Mapped[bool] = mapped_column(default=False)
    reason: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime.datetime]
    closed_at: Mapped[datetime.datetime | None]

    @property
    def access(self) -> Literal["read", "write"]:
        return "write" if self.can_write else "read"

    @property
    def is_break_glass(self) -> bool:
        return self.grant_id is None

    @property
    def is_open(self) -> bool:
        return self.closed_at is None and self.expires_at > _now()


class OperatorAccessNotice(TenantBase):
    """That an owner was written to, since a mail is about one row: of whom, and of what."""

    __tablename__ = "operator_access_notice"
    __table_args__ = (
        CheckConstraint("num_nonnulls(request_id, session_id) = 1", name="about_one"),
        {"info": {"secret": True}},
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"), index=True)
    request_id: Mapped[UUID | None] = mapped_column(ForeignKey("operator_access_request.id"))
    session_id: Mapped[UUID | None] = mapped_column(ForeignKey("operator_access_session.id"))
