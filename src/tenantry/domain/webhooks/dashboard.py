"""What the dashboard shows of webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from tenantry.domain.webhooks.models import WebhookEndpoint
from tenantry.domain.webhooks.service import LIVE
from tenantry.kernel.feature import DashboardPart
from tenantry.kernel.schema import BaseStruct

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.tenancy.guards import Principal

__all__ = ("WEBHOOKS_PART", "WebhooksPart")


class WebhooksPart(BaseStruct):
    enabled: int
    failing: int
    """Of the enabled ones: their last attempt has failed."""
    disabled: int


async def _read(session: AsyncSession, _: Principal) -> WebhooksPart:
    enabled = WebhookEndpoint.is_enabled
    counted = await session.execute(
        select(
            func.count().filter(enabled),
            func.count().filter(enabled & WebhookEndpoint.failing_since.is_not(None)),
            func.count().filter(~enabled),
        )
        .select_from(WebhookEndpoint)
        .where(LIVE)
    )
    good, failing, disabled = counted.one()
    return WebhooksPart(enabled=good, failing=failing, disabled=disabled)


WEBHOOKS_PART = DashboardPart("webhooks", _read, "webhooks:read")
