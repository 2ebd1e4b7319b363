"""Cleaning up after addresses that were confirmed, or were not."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from sqlalchemy import delete, func
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.identity.verification.models import EmailVerification
from tenantry.jobs.definition import job

__all__ = ("forget_old_email_verifications",)


@job("forget_old_email_verifications", retries=3, timeout=60, backoff=60)
async def forget_old_email_verifications(session: AsyncSession, days: Annotated[int, Meta(ge=1, le=3650)] = 30) -> int:
    """Delete the links that expired `days` ago; how many."""
    gone = await session.execute(
        delete(EmailVerification)
        .where(EmailVerification.expires_at < func.now() - func.make_interval(0, 0, 0, days))
        .returning(EmailVerification.id)
        .execution_options(synchronize_session=False)
    )
    return len(gone.all())
