"""Cleaning up after people who signed up, or did not come."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from sqlalchemy import delete, func
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.identity.sign_up.models import SignUp
from tenantry.jobs.definition import job

__all__ = ("forget_old_sign_ups",)


@job("forget_old_sign_ups", retries=3, timeout=60, backoff=60)
async def forget_old_sign_ups(session: AsyncSession, days: Annotated[int, Meta(ge=1, le=3650)] = 7) -> int:
    """Delete the sign-ups that expired `days` ago; how many. Sooner than others: most of these people are nobody's."""
    gone = await session.execute(
        delete(SignUp)
        .where(SignUp.expires_at < func.now() - func.make_interval(0, 0, 0, days))
        .returning(SignUp.id)
        .execution_options(synchronize_session=False)
    )
    return len(gone.all())
