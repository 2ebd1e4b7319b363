"""By whom an organization has its people signed in, and who they are there."""

from __future__ import annotations

import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, LargeBinary, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tenantry.domain.identity.users.models import User
from tenantry.domain.roles.models import Role
from tenantry.tenancy.models import TenantBase, TenantRecord, length_check

__all__ = ("SsoConnection", "SsoDomain", "SsoGrant", "SsoIdentity", "SsoLogin")

# In a copy of an organization the client's secret cannot be opened, and its provider knows nothing of the copy.
_SECRET = {"info": {"secret": True}}


class SsoConnection(TenantBase):
    """An OpenID provider of the organization's own."""

    __tablename__ = "sso_connection"
    __table_args__ = (
        length_check("name", 100, minimum=1),
        length_check("issuer", 500, minimum=1),
        length_check("client_id", 500, minimum=1),
        length_check("role_claim", 200),
        length_check("last_failure", 500),
        CheckConstraint("cardinality(scopes) <= 50", name="scopes_range"),
        _SECRET,
    )

    name: Mapped[str] = mapped_column(Text)
    issuer: Mapped[str] = mapped_column(Text)
    client_id: Mapped[str] = mapped_column(Text)
    client_secret: Mapped[bytes] = mapped_column(LargeBinary, deferred=True, deferred_group="secret")
    """Sealed by the deployment's vault."""
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    is_enabled: Mapped[bool] = mapped_column(default=True)
    is_enforced: Mapped[bool] = mapped_column(default=False)
    """People of its domains do not use passwords, but for owners."""
    provisions_users: Mapped[bool] = mapped_column(default=False)
    """Whether whoever has no account gets one."""
    owners_allowed: Mapped[bool] = mapped_column(default=False)
    """Whether it may sign owners and superusers in, and make owners: then its provider may do everything here."""
    role_claim: Mapped[str | None] = mapped_column(Text)
    """With it, roles follow from what the provider says at each log-in."""
    last_used_at: Mapped[datetime.datetime | None]
    last_failed_at: Mapped[datetime.datetime | None]
    last_failure: Mapped[str | None] = mapped_column(Text)
    """What was wrong with the provider's answers, in words of ours."""

    domains: Mapped[list[SsoDomain]] = relationship(lazy="raise", cascade="all, delete-orphan", passive_deletes=True)
    grants: Mapped[list[SsoGrant]] = relationship(lazy="raise", cascade="all, delete-orphan", passive_deletes=True)


class SsoDomain(TenantRecord):
    """An e-mail domain whose people a connection signs in; one connection's alone."""

    __tablename__ = "sso_domain"
    __table_args__ = (
        UniqueConstraint("domain", name="uq_sso_domain_domain"),
        length_check("domain", 253, minimum=1),
        _SECRET,
    )

    connection_id: Mapped[UUID] = mapped_column(ForeignKey("sso_connection.id", ondelete="CASCADE"), index=True)
    domain: Mapped[str] = mapped_column(Text)
    """As in DNS: lower case, `xn--…`."""


class SsoGrant(TenantRecord):
    """A role that a connection gives. By its id: another role that gets the slug of one that is gone is not it."""

    __tablename__ = "sso_grant"
    __table_args__ = (length_check("claim_value", 500, minimum=1), _SECRET)

    connection_id: Mapped[UUID] = mapped_column(ForeignKey("sso_connection.id", ondelete="CASCADE"), index=True)
    claim_value: Mapped[str | None] = mapped_column(Text)
    """Given to whose claim has this value; None: to whom no other is given."""
    role_id: Mapped[UUID] = mapped_column(ForeignKey("role.id", ondelete="CASCADE"), index=True)

    role: Mapped[Role] = relationship(lazy="joined", innerjoin=True)


class SsoIdentity(TenantBase):
    """Who a user is at a provider. By `sub` alone: addresses are given to others there (OpenID Connect Core §5.7)."""

    __tablename__ = "sso_identity"
    __table_args__ = (
        UniqueConstraint("connection_id", "subject", name="uq_sso_identity_connection_id_subject"),
        UniqueConstraint("connection_id", "user_id", name="uq_sso_identity_connection_id_user_id"),
        length_check("subject", 255, minimum=1),
        _SECRET,
    )

    connection_id: Mapped[UUID] = mapped_column(ForeignKey("sso_connection.id", ondelete="CASCADE"))
    user_id: Mapped[UUID] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"), index=True)
    subject: Mapped[str] = mapped_column(Text)
    last_login_at: Mapped[datetime.datetime | None]

    user: Mapped[User] = relationship(lazy="raise", viewonly=True)


class SsoLogin(TenantBase):
    """A browser that came back from a provider: its `state` is used up, and where all went well there is a code."""

    __tablename__ = "sso_login"
    __table_args__ = (
        UniqueConstraint("state_digest", name="uq_sso_login_state_digest"),
        UniqueConstraint("code_digest", name="uq_sso_login_code_digest"),
        length_check("code_challenge", 43),
        _SECRET,
    )

    connection_id: Mapped[UUID] = mapped_column(ForeignKey("sso_connection.id", ondelete="CASCADE"), index=True)
    state_digest: Mapped[bytes] = mapped_column(LargeBinary)
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"), index=True)
    """Who was signed in; None where nobody was."""
    code_digest: Mapped[bytes | None] = mapped_column(LargeBinary)
    """SHA-256 of the code that the front end trades for tokens."""
    code_challenge: Mapped[str | None] = mapped_column(Text)
    """That only the page which began can answer (RFC 7636)."""
    expires_at: Mapped[datetime.datetime]
    traded_at: Mapped[datetime.datetime | None]
