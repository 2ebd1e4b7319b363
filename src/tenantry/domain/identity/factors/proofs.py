"""Whether a factor proves who somebody is, and what becomes of it: each proof is good once."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import undefer_group
from webauthn.helpers import base64url_to_bytes

from tenantry.domain.identity.factors.models import FactorFailure, Passkey, RecoveryCode, TotpFactor
from tenantry.domain.identity.factors.recovery import recovery_digest
from tenantry.domain.identity.factors.relying_party import InvalidPasskey
from tenantry.domain.identity.factors.totp import find_step
from tenantry.events.record import SYSTEM, record_event
from tenantry.kernel.errors import TooManyRequestsException, ValidationFailedException
from tenantry.kernel.security import BrokenSealError

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.domain.identity.factors.relying_party import RelyingParty
    from tenantry.domain.identity.factors.schemas import FactorProof, PasskeyAssertion
    from tenantry.kernel.security import Vault
    from tenantry.tenancy.context import TenantContext

__all__ = ("check_failures", "note_failure", "octets", "require_one", "totp_purpose", "verify_passkey", "verify_proof")

_log = structlog.get_logger(__name__)

_DAY = datetime.timedelta(days=1)


def totp_purpose(tenant_id: UUID) -> str:
    """What the vault binds an authenticator's secret to: in another organization it does not open."""
    return f"totp-secret:{tenant_id}"


def require_one(proof: FactorProof, *, others: int = 0) -> None:
    """Refuse what proves nothing, or too much.

    Raises:
        ValidationFailedException: not exactly one of its fields is given, `others` counted.
    """
    given = sum(each is not None for each in (proof.code, proof.recovery_code, proof.passkey)) + others
    if given != 1:
        raise ValidationFailedException.of("code", "Expected exactly one proof: a code, a recovery code or a passkey.")


async def check_failures(session: AsyncSession, user_id: UUID, proof: FactorProof, *, most: int) -> None:
    """Refuse codes, where too many wrong ones were tried on the account within a day. Passkeys cannot be guessed.

    Raises:
        TooManyRequestsException: with the seconds until there is one less.
    """
    if proof.passkey is not None:
        return
    now = datetime.datetime.now(datetime.UTC)
    # The one that has to be older than a day for another to be free.
    blocking = await session.scalar(
        select(FactorFailure.created_at)
        .where(FactorFailure.user_id == user_id, FactorFailure.created_at > now - _DAY)
        .order_by(FactorFailure.created_at.desc())
        .offset(most - 1)
        .limit(1)
    )
    if blocking is not None:
        left = int((blocking + _DAY - now).total_seconds()) + 1
        raise TooManyRequestsException(
            "Too many wrong codes were tried on this account today; a passkey is still taken.", retry_after=left
        )


async def note_failure(session: AsyncSession, user_id: UUID, proof: FactorProof) -> None:
    """Count a wrong code."""
    if proof.passkey is None:
        session.add(FactorFailure(user_id=user_id))
        await session.flush()


async def verify_proof(
    session: AsyncSession,
    tenant: TenantContext,
    user_id: UUID,
    proof: FactorProof,
    *,
    vault: Vault,
    party: RelyingParty,
    challenge: bytes | None,
    now: float,
) -> bool:
    """Whether the factor is the user's and good at this moment, which it then no longer is.

    Args:
        session: whose transaction has locked the account's row, so that of two who show one factor the second finds it
            used.
        tenant: the organization.
        user_id: who it is to be.
        proof: one of them.
        vault: that sealed the authenticator's secret.
        party: for passkeys.
        challenge: which a passkey has to have signed; None where there was none.
        now: seconds since 1970.

    Raises:
        SealError: the secret of their authenticator cannot be opened.
    """
    if proof.code is not None:
        return await _take_code(session, tenant, user_id, proof.code, vault=vault, now=now)
    if proof.recovery_code is not None:
        return await _take_recovery_code(session, user_id, proof.recovery_code)
    if proof.passkey is None or challenge is None:
        return False
    return await verify_passkey(session, tenant, user_id, proof.passkey, party=party, challenge=challenge)


async def _take_code(
    session: AsyncSession, tenant: TenantContext, user_id: UUID, code: str, *, vault: Vault, now: float
) -> bool:
    factor = await session.scalar(
        select(TotpFactor)
        .where(TotpFactor.user_id == user_id, TotpFactor.confirmed_at.is_not(None))
        .options(undefer_group("secret"))
    )
    if factor is None:
        return False
    try:
        secret = vault.unseal(factor.secret, purpose=totp_purpose(tenant.id), owner=factor.id)
    except BrokenSealError:
        # Another organization's, of which this one is an import: its apps are good there alone, and no code is right.
        _log.warning("an authenticator's secret is not this organization's", factor=str(factor.id))
        return False
    step = find_step(secret, code, now=now, last=factor.last_step)
    if step is None:
        return False
    # Compared again by whoever writes: what was read may be as old as the wait for a lock.
    taken = await session.scalar(
        update(TotpFactor)
        .where(TotpFactor.id == factor.id, or_(TotpFactor.last_step.is_(None), TotpFactor.last_step < step))
        .values(last_step=step, last_used_at=func.now())
        .returning(TotpFactor.id)
        .execution_options(synchronize_session=False)
    )
    return taken is not None


async def _take_recovery_code(session: AsyncSession, user_id: UUID, code: str) -> bool:
    taken = await session.scalar(
        update(RecoveryCode)
        .where(
            RecoveryCode.user_id == user_id,
            RecoveryCode.digest == recovery_digest(user_id, code),
            RecoveryCode.used_at.is_(None),
        )
        .values(used_at=func.now())
        .returning(RecoveryCode.id)
        .execution_options(synchronize_session=False)
    )
    if taken is None:
        return False
    left = await session.scalar(
        select(func.count())
        .select_from(RecoveryCode)
        .where(RecoveryCode.user_id == user_id, RecoveryCode.used_at.is_(None))
    )
    await record_event(
        session,
        "second_factor.recovery_code_used",
        subject=user_id,
        payload={"left": left or 0},
        # Not the person, for all that is known: whoever found the sheet of paper. So they are told.
        actor=SYSTEM,
    )
    return True


async def verify_passkey(
    session: AsyncSession,
    tenant: TenantContext,
    user_id: UUID,
    assertion: PasskeyAssertion,
    *,
    party: RelyingParty,
    challenge: bytes,
    alone: bool = False,
) -> bool:
    """Whether a passkey of the user has signed the challenge; `alone` if there was no password before it."""
    passkey = await session.scalar(
        select(Passkey)
        .where(Passkey.user_id == user_id, Passkey.credential_id == octets(assertion.raw_id))
        .with_for_update()
    )
    if passkey is None:
        return False
    try:
        count = party.verify_assertion(tenant, passkey, assertion.as_credential(), challenge=challenge, alone=alone)
    except InvalidPasskey:
        return False
    passkey.sign_count = count
    passkey.last_used_at = datetime.datetime.now(datetime.UTC)
    await session.flush()
    return True


def octets(text: str) -> bytes:
    """Of base64url; of text that is none, none."""
    try:
        return base64url_to_bytes(text)
    except ValueError:
        return b""
