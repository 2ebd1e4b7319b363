"""Cleaning up after password resets."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from sqlalchemy import delete, func
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.identity.passwords.models import PasswordReset
from tenantry.jobs.definition import job

__all__ = ("forget_old_password_resets",)


@job("forget_old_password_resets", retries=3, timeout=60, backoff=60)
async def forget_old_password_resets(session: AsyncSession, days: Annotated[int, Meta(ge=1, le=3650)] = 30) -> int:
    """Delete the resets that expired `days` ago; how many."""
    gone = await session.execute(
        delete(PasswordReset)
        .where(PasswordReset.expires_at < func.now() - func.make_interval(0, 0, 0, days))
        .returning(PasswordReset.id)
        .execution_options(synchronize_session=False)
    )
    return len(gone.all())
