"""Sending webhooks, and forgetting what was sent."""

from __future__ import annotations

import datetime
from ipaddress import ip_network
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer_group

from tenantry.domain.webhooks.models import WebhookDelivery, WebhookEndpoint
from tenantry.domain.webhooks.sending import Line, secret_purpose
from tenantry.jobs.definition import JobRun, Transactions, job
from tenantry.kernel.outbound import OutboundClient
from tenantry.kernel.security import SealError, Vault
from tenantry.kernel.settings import Settings
from tenantry.tenancy.context import TenantContext

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("KEPT", "delete_webhook", "send_webhooks", "tend_webhooks")

KEPT = datetime.timedelta(days=30)
"""For which deliveries are listed, and can be replayed one by one."""
_BATCH = 5000


@job("send_webhooks", retries=20, timeout=180, backoff=5, keep=60)
async def send_webhooks(
    open: Transactions,  # noqa: A002
    settings: Settings,
    vault: Vault,
    tenant: TenantContext,
    run: JobRun,
    endpoint_id: UUID,
) -> int:
    """Send what is in an endpoint's line; how many requests that were.

    Where the plan has no webhooks any more, the line waits: `tend_webhooks` has it worked off if they come back.
    """
    if not tenant.allows("webhooks"):
        return 0

    async def come_back(session: AsyncSession, at: datetime.datetime | None) -> None:
        await send_webhooks.enqueue(session, at=at, endpoint_id=endpoint_id)

    besides = tuple(map(ip_network, settings.outbound_networks))
    async with OutboundClient(timeout=settings.outbound_timeout, besides=besides) as client:
        line = Line(
            endpoint_id=endpoint_id,
            tenant_id=tenant.id,
            job_id=UUID(run.id),
            open=open,
            client=client,
            vault=vault,
            come_back=come_back,
        )
        return await line.work_off()


@job("delete_webhook", retries=20, timeout=300, backoff=30, keep=60)
async def delete_webhook(open: Transactions, endpoint_id: UUID) -> int:  # noqa: A002
    """Delete an endpoint that nobody sees any more, its deliveries first; how many these were.

    A batch in each transaction: of a month of deliveries, one statement would take longer than it may.
    """
    some = select(WebhookDelivery.id).where(WebhookDelivery.endpoint_id == endpoint_id).limit(_BATCH)
    count = 0
    while True:
        async with open() as session:
            gone = await session.execute(
                delete(WebhookDelivery).where(WebhookDelivery.id.in_(some)).returning(WebhookDelivery.id)
            )
            deleted = len(gone.all())
            count += deleted
            if deleted < _BATCH:
                await session.execute(
                    delete(WebhookEndpoint).where(
                        WebhookEndpoint.id == endpoint_id, WebhookEndpoint.deleted_at.is_not(None)
                    )
                )
                return count


@job("tend_webhooks", retries=3, timeout=120, backoff=30)
async def tend_webhooks(session: AsyncSession, vault: Vault, tenant: TenantContext) -> int:
    """Forget old deliveries, seal secrets anew after the vault's key was rotated, and have lines worked off whose job
    was lost; how many deliveries were forgotten."""
    await _reseal(session, vault, secret_purpose(tenant.id))
    is_allowed = tenant.allows("webhooks")
    old = (
        select(WebhookDelivery.id)
        .where(
            WebhookDelivery.updated_at < func.now() - KEPT,
            # What waits for a plan with webhooks does so for no longer.
            *([WebhookDelivery.status != "pending"] if is_allowed else []),
        )
        .order_by(WebhookDelivery.updated_at)
        .limit(_BATCH)
    )
    forgotten = (
        await session.execute(delete(WebhookDelivery).where(WebhookDelivery.id.in_(old)).returning(WebhookDelivery.id))
    ).all()
    for endpoint_id in await _stranded(session) if is_allowed else ():
        await send_webhooks.enqueue(session, endpoint_id=endpoint_id)
    if len(forgotten) == _BATCH:
        await tend_webhooks.enqueue(session, key="more")
    return len(forgotten)


async def _reseal(session: AsyncSession, vault: Vault, purpose: str) -> None:
    for endpoint in await session.scalars(
        select(WebhookEndpoint).options(undefer_group("secret")).with_for_update(key_share=True)
    ):
        for name in ("secret", "previous_secret"):
            sealed = getattr(endpoint, name)
            try:
                if sealed is None or not vault.needs_resealing(sealed):
                    continue
                plain = vault.unseal(sealed, purpose=purpose, owner=endpoint.id)
            except SealError:
                # Sending says so in every attempt.
                continue
            setattr(endpoint, name, vault.seal(plain, purpose=purpose, owner=endpoint.id))


async def _stranded(session: AsyncSession) -> Sequence[UUID]:
    """Endpoints in whose line something waits that nobody is at: the job that was is dead."""
    waiting = select(WebhookDelivery.id).where(
        WebhookDelivery.endpoint_id == WebhookEndpoint.id, WebhookDelivery.status == "pending"
    )
    return list(
        await session.scalars(
            select(WebhookEndpoint.id).where(
                WebhookEndpoint.is_enabled,
                func.coalesce(WebhookEndpoint.next_attempt_at, func.now()) <= func.now(),
                func.coalesce(WebhookEndpoint.worker_until, func.now()) <= func.now(),
                waiting.exists(),
            )
        )
    )
