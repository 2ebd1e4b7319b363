"""What was begun and waits for a factor: named by a credential that is good once."""

from __future__ import annotations

import datetime
import hashlib
from typing import TYPE_CHECKING, Literal

from sqlalchemy import delete, func, select

from tenantry.domain.identity.factors.models import FactorChallenge
from tenantry.domain.identity.factors.relying_party import new_challenge
from tenantry.kernel.security import SECOND_FACTOR, Credential, InvalidCredential

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.tenancy.context import TenantContext

__all__ = ("begin", "evidence_of", "find", "take")


def evidence_of(hashed_password: str | None) -> bytes | None:
    """What a log-in remembers of the password that began it."""
    return None if hashed_password is None else hashlib.sha256(hashed_password.encode()).digest()


async def begin(
    session: AsyncSession,
    tenant: TenantContext,
    *,
    kind: Literal["register", "step_up", "log_in"],
    user_id: UUID,
    ttl: int,
    session_id: UUID | None = None,
    evidence: bytes | None = None,
) -> tuple[str, FactorChallenge]:
    """Begin something that is good for `ttl` seconds; the credential that names it. A session has one of a kind."""
    if session_id is not None:
        await session.execute(
            delete(FactorChallenge).where(FactorChallenge.session_id == session_id, FactorChallenge.kind == kind)
        )
    token, digest = Credential.new(SECOND_FACTOR, tenant.id)
    begun = FactorChallenge(
        user_id=user_id,
        session_id=session_id,
        kind=kind,
        digest=digest,
        webauthn_challenge=new_challenge(),
        evidence=evidence,
        expires_at=datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=ttl),
    )
    session.add(begun)
    await session.flush()
    return token, begun


async def find(
    session: AsyncSession,
    tenant: TenantContext,
    token: str,
    *,
    kind: Literal["register", "step_up", "log_in"],
    session_id: UUID | None = None,
    lock: bool = False,
) -> FactorChallenge | None:
    """What the credential names, of this kind and this session's, while it is good."""
    try:
        parsed = Credential.parse(token, SECOND_FACTOR)
    except InvalidCredential:
        return None
    if parsed.tenant_id != tenant.id:
        return None
    wanted = select(FactorChallenge).where(
        FactorChallenge.digest == parsed.digest,
        FactorChallenge.kind == kind,
        FactorChallenge.session_id == session_id if session_id is not None else FactorChallenge.session_id.is_(None),
        FactorChallenge.expires_at > func.now(),
    )
    found: FactorChallenge | None = await session.scalar(wanted.with_for_update() if lock else wanted)
    return found


async def take(
    session: AsyncSession,
    tenant: TenantContext,
    token: str,
    *,
    kind: Literal["register", "step_up"],
    session_id: UUID,
) -> FactorChallenge | None:
    """What the credential names, which is thereby over, whatever comes of it."""
    found = await find(session, tenant, token, kind=kind, session_id=session_id, lock=True)
    if found is not None:
        await session.delete(found)
        await session.flush()
    return found
