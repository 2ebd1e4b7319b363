"""Cleaning up after sign-ups."""

from __future__ import annotations

from sqlalchemy import delete, func
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.jobs.definition import job
from tenantry.kernel.settings import Settings
from tenantry.platform.signup.models import SignUp

__all__ = ("forget_expired_sign_ups",)


@job("forget_expired_sign_ups", retries=3, timeout=60, backoff=60, platform=True)
async def forget_expired_sign_ups(session: AsyncSession, settings: Settings) -> int:
    """Delete sign-ups whose link is good no more, confirmed or not; how many.

    Whoever tries one of those is told that it has expired or never was one, before as after. One that was replaced
    stays as long as it would have, since it tells for whom the slug was kept.
    """
    gone = await session.execute(
        delete(SignUp)
        .where(
            SignUp.expires_at < func.now(),
            SignUp.created_at < func.now() - func.make_interval(0, 0, 0, 0, 0, 0, settings.signup_ttl),
        )
        .returning(SignUp.id)
        .execution_options(synchronize_session=False)
    )
    return len(gone.all())
