"""What people have besides a password, and what the organization asks of them."""

from __future__ import annotations

import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, LargeBinary, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import TenantBase, length_check, one_of_check

__all__ = (
    "CHALLENGE_KINDS",
    "GRACE_DAYS",
    "MOST_GRACE_DAYS",
    "FactorChallenge",
    "FactorFailure",
    "Passkey",
    "RecoveryCode",
    "SecurityPolicy",
    "TotpFactor",
)

CHALLENGE_KINDS = ("register", "step_up", "log_in")
GRACE_DAYS = 14
"""Unless the organization says otherwise."""
MOST_GRACE_DAYS = 90

# A copy of the organization is for others than its people: what proves who these are is not in it.
_SECRET = {"info": {"secret": True}}


class TotpFactor(TenantBase):
    """An authenticator app: a secret that it shares with us (RFC 6238). Counts once a code of it has been shown."""

    __tablename__ = "totp_factor"
    __table_args__ = (UniqueConstraint("user_id", name="uq_totp_factor_user_id"), _SECRET)

    user_id: Mapped[UUID] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"))
    secret: Mapped[bytes] = mapped_column(LargeBinary, deferred=True, deferred_group="secret")
    """Sealed by the deployment's vault."""
    confirmed_at: Mapped[datetime.datetime | None]
    last_step: Mapped[int | None] = mapped_column(BigInteger)
    """The time step of the last code that was taken: neither it nor one before is taken again."""
    last_used_at: Mapped[datetime.datetime | None]


class RecoveryCode(TenantBase):
    """A way in for whoever has lost their other factors, good once."""

    __tablename__ = "recovery_code"
    __table_args__ = (UniqueConstraint("digest", name="uq_recovery_code_digest"), _SECRET)

    user_id: Mapped[UUID] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"), index=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256: 120 random bits need no slow hash (NIST SP 800-63B-4, section 3.1.2.2, asks for 112)."""
    used_at: Mapped[datetime.datetime | None]


class Passkey(TenantBase):
    """A WebAuthn credential: we have its public key, and the person's device, or their keychain, has the other."""

    __tablename__ = "passkey"
    __table_args__ = (
        UniqueConstraint("credential_id", name="uq_passkey_credential_id"),
        CheckConstraint("octet_length(credential_id) BETWEEN 1 AND 1023", name="credential_id_length"),
        CheckConstraint("cardinality(transports) <= 10", name="transports_range"),
        CheckConstraint("sign_count >= 0", name="sign_count_range"),
        length_check("name", 100, minimum=1),
        _SECRET,
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"), index=True)
    credential_id: Mapped[bytes] = mapped_column(LargeBinary)
    public_key: Mapped[bytes] = mapped_column(LargeBinary)
    """In COSE's form (RFC 9052, section 7)."""
    sign_count: Mapped[int] = mapped_column(BigInteger, default=0)
    """How often it was used, as it says itself; 0 where it does not count. A copy of it falls behind."""
    name: Mapped[str] = mapped_column(Text)
    transports: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list)
    """How browsers reach it; hints that are handed back to them."""
    is_backed_up: Mapped[bool] = mapped_column(default=False)
    """Whether it is in a keychain that several devices share."""
    last_used_at: Mapped[datetime.datetime | None]


class FactorChallenge(TenantBase):
    """Something that was begun and waits for a factor: a log-in after the password, a step-up, or a new passkey."""

    __tablename__ = "factor_challenge"
    __table_args__ = (
        UniqueConstraint("digest", name="uq_factor_challenge_digest"),
        one_of_check("kind", CHALLENGE_KINDS),
        CheckConstraint("failures >= 0", name="failures_range"),
        Index("ix_factor_challenge_expires_at", "expires_at"),
        _SECRET,
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"), index=True)
    session_id: Mapped[UUID | None] = mapped_column(ForeignKey("user_session.id", ondelete="CASCADE"), index=True)
    """The session that began it, and that alone can end it; of a log-in there is none yet."""
    kind: Mapped[str] = mapped_column(Text)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of the credential by which it is named."""
    webauthn_challenge: Mapped[bytes] = mapped_column(LargeBinary)
    """What a passkey has to sign."""
    evidence: Mapped[bytes | None] = mapped_column(LargeBinary)
    """SHA-256 of the password's hash, of a log-in: with another password it is no longer half done."""
    failures: Mapped[int] = mapped_column(default=0)
    expires_at: Mapped[datetime.datetime]


class FactorFailure(TenantBase):
    """A wrong code. How many there were in a day is asked here, since Redis may be away."""

    __tablename__ = "factor_failure"
    __table_args__ = (Index("ix_factor_failure_user_id_created_at", "user_id", "created_at"), _SECRET)

    user_id: Mapped[UUID] = mapped_column(ForeignKey("user_account.id", ondelete="CASCADE"))


class SecurityPolicy(TenantBase):
    """What the organization asks of everybody; one row at most, and none asks for nothing."""

    __tablename__ = "security_policy"
    __table_args__ = (
        UniqueConstraint("is_only", name="uq_security_policy_is_only"),
        CheckConstraint("is_only", name="is_only"),
        CheckConstraint(f"grace_days BETWEEN 0 AND {MOST_GRACE_DAYS}", name="grace_days_range"),
    )

    is_only: Mapped[bool] = mapped_column(default=True)
    required_since: Mapped[datetime.datetime | None]
    """Since when everybody needs a second factor; None where nobody does."""
    grace_days: Mapped[int] = mapped_column(default=GRACE_DAYS)
    """Which everybody has to set one up: from then on, or since they joined if that is later."""
