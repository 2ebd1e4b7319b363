"""Cleaning up after changes of address."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from sqlalchemy import delete, func
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.identity.address_changes.models import EmailChange
from tenantry.jobs.definition import job

__all__ = ("forget_old_email_changes",)


@job("forget_old_email_changes", retries=3, timeout=60, backoff=60)
async def forget_old_email_changes(session: AsyncSession, days: Annotated[int, Meta(ge=1, le=3650)] = 30) -> int:
    """Delete the changes that ended or expired `days` ago, with the addresses that people have left; how many."""
    gone = await session.execute(
        delete(EmailChange)
        .where(
            func.least(EmailChange.expires_at, EmailChange.ended_at) < func.now() - func.make_interval(0, 0, 0, days)
        )
        .returning(EmailChange.id)
        .execution_options(synchronize_session=False)
    )
    return len(gone.all())
