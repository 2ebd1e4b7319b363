"""What the dashboard shows of API keys."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import func, or_, select, true

from tenantry.domain.identity.api_keys.models import ApiKey
from tenantry.kernel.feature import DashboardPart
from tenantry.kernel.schema import BaseStruct

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.tenancy.guards import Principal

__all__ = ("API_KEYS_PART", "ApiKeysPart", "ExpiringKey")

_DAYS = 14
_MOST = 10


class ExpiringKey(BaseStruct):
    """A key that its machine will soon be without."""

    id: UUID
    name: str
    hint: str
    """The last four digits."""
    user_id: UUID | None
    service_account_id: UUID | None
    expires_at: datetime


class ApiKeysPart(BaseStruct):
    active: int
    """The caller's own; for whoever manages everybody's, all of them."""
    expiring: list[ExpiringKey]
    """Of those the ten that expire first, within two weeks."""


async def _read(session: AsyncSession, principal: Principal) -> ApiKeysPart:
    whose = true() if "api_keys:manage" in principal.permissions else ApiKey.user_id == principal.user_id
    good = (whose, ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()))
    active = await session.scalar(select(func.count()).select_from(ApiKey).where(*good)) or 0
    expiring = await session.scalars(
        select(ApiKey)
        .where(*good, ApiKey.expires_at < func.now() + func.make_interval(0, 0, 0, _DAYS))
        .order_by(ApiKey.expires_at, ApiKey.id)
        .limit(_MOST)
    )
    return ApiKeysPart(
        active=active,
        expiring=[
            ExpiringKey(
                id=key.id,
                name=key.name,
                hint=key.hint,
                user_id=key.user_id,
                service_account_id=key.service_account_id,
                expires_at=key.expires_at,
            )
            for key in expiring
            if key.expires_at is not None
        ],
    )


API_KEYS_PART = DashboardPart("apiKeys", _read)
