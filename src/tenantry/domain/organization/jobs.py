"""What becomes of an export that the organization's people have asked for."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.organization.service import OrganizationService
from tenantry.events.record import SYSTEM, record_event
from tenantry.jobs.definition import Discard, job
from tenantry.kernel.errors import ResourceNotFoundException

__all__ = ("announce_export", "pause_before")

_FIRST, _LONGEST = 5, 300
"""Seconds between two looks, twice as long each time."""
_LOOKS = 300
"""Which is a day: nobody waits for it any more."""


def pause_before(look: int) -> int:
    """Seconds before that look, the first being 0."""
    return min(_FIRST << min(look, 10), _LONGEST)


@job("announce_export", retries=8, timeout=30)
async def announce_export(session: AsyncSession, export_id: UUID, user_id: UUID, look: int = 0) -> str:
    """Record that an export is ready, or has failed; look again later while it is neither. What it is now.

    The provisioner makes it, and is no tenant: what happens in an organization is recorded in its own scope.
    """
    try:
        status = (await OrganizationService(session).export(export_id)).status
    except ResourceNotFoundException as error:
        raise Discard("there is no such export any more") from error
    if status == "pending":
        if look + 1 < _LOOKS:
            after = pause_before(look + 1)
            await announce_export.schedule(session, after, export_id=export_id, user_id=user_id, look=look + 1)
        return status
    # Nobody's doing: whoever has asked is the one to be told.
    name = "organization.export_failed" if status == "failed" else "organization.export_ready"
    await record_event(session, name, subject=export_id, payload={"user_id": user_id}, actor=SYSTEM)
    return status
