"""Cleaning up after log-ins, and keeping the clients' secrets sealed by the newest key."""

from __future__ import annotations

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer_group

from tenantry.domain.identity.sso.models import SsoConnection, SsoLogin
from tenantry.domain.identity.sso.service import secret_purpose
from tenantry.jobs.definition import job
from tenantry.kernel.security import SealError, Vault
from tenantry.tenancy.context import TenantContext

__all__ = ("tend_sso",)

_BATCH = 10_000
"""Rows that one statement deletes; the next run goes on."""


@job("tend_sso", retries=3, timeout=120, backoff=60)
async def tend_sso(session: AsyncSession, vault: Vault, tenant: TenantContext) -> int:
    """Forget log-ins that are a day old, of which only that they were used up counts, and only for ten minutes; how
    many. Seal clients' secrets anew after the vault's key was rotated."""
    for connection in await session.scalars(
        select(SsoConnection).options(undefer_group("secret")).with_for_update(key_share=True)
    ):
        try:
            if not vault.needs_resealing(connection.client_secret):
                continue
            plain = vault.unseal(connection.client_secret, purpose=secret_purpose(tenant.id), owner=connection.id)
        except SealError:
            # Signing in says so, in the connection's `lastFailure`.
            continue
        connection.client_secret = vault.seal(plain, purpose=secret_purpose(tenant.id), owner=connection.id)
    old = select(SsoLogin.id).where(SsoLogin.expires_at < func.now() - func.make_interval(0, 0, 0, 1)).limit(_BATCH)
    gone = await session.execute(
        delete(SsoLogin).where(SsoLogin.id.in_(old)).returning(SsoLogin.id).execution_options(synchronize_session=False)
    )
    return len(gone.all())
