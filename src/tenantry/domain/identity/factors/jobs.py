"""Sealing authenticators' secrets anew, and forgetting what was begun and never ended."""

from __future__ import annotations

import datetime

import structlog
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer_group

from tenantry.domain.identity.factors.models import FactorChallenge, FactorFailure, TotpFactor
from tenantry.domain.identity.factors.proofs import totp_purpose
from tenantry.jobs.definition import job
from tenantry.kernel.security import SealError, Vault
from tenantry.tenancy.context import TenantContext

__all__ = ("tend_second_factors",)

_DAY = datetime.timedelta(days=1)
_log = structlog.get_logger(__name__)


@job("tend_second_factors", retries=3, timeout=120, backoff=30)
async def tend_second_factors(session: AsyncSession, vault: Vault, tenant: TenantContext) -> int:
    """Seal secrets anew after the vault's key was rotated, and forget challenges, wrong codes and apps that nobody has
    confirmed in a day; how many secrets were sealed anew."""
    await session.execute(delete(FactorChallenge).where(FactorChallenge.expires_at < func.now()))
    await session.execute(delete(FactorFailure).where(FactorFailure.created_at < func.now() - _DAY))
    await session.execute(
        delete(TotpFactor).where(TotpFactor.confirmed_at.is_(None), TotpFactor.created_at < func.now() - _DAY)
    )
    purpose, count = totp_purpose(tenant.id), 0
    for factor in await session.scalars(
        select(TotpFactor).options(undefer_group("secret")).with_for_update(key_share=True)
    ):
        try:
            if not vault.needs_resealing(factor.secret):
                continue
            plain = vault.unseal(factor.secret, purpose=purpose, owner=factor.id)
        except SealError as error:
            # Its person is told at every attempt to log in; the others' secrets are not to wait for it.
            _log.warning("an authenticator's secret cannot be opened", factor=str(factor.id), error=str(error))
            continue
        factor.secret = vault.seal(plain, purpose=purpose, owner=factor.id)
        count += 1
    return count
