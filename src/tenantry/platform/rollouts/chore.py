"""What the provisioner does about rollouts by itself: those that nobody carries out, and tenants that came too late."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import structlog
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.kernel.errors import ConflictException
from tenantry.platform.audit.service import PROVISIONER
from tenantry.platform.rollouts.models import Rollout
from tenantry.platform.rollouts.planning import older_revisions
from tenantry.platform.rollouts.runner import RolloutRunner
from tenantry.platform.rollouts.steering import start_rollout
from tenantry.tenancy.migrations import head
from tenantry.tenancy.revision_files import HAS_SCHEMA
from tenantry.tenancy.revisions import UnknownRevisionError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from tenantry.kernel.settings import Settings

__all__ = ("RolloutChore",)

_AT_ONCE = 1000
"""Stragglers of one rollout."""

_log = structlog.get_logger(__name__)


class RolloutChore:
    """Carries out rollouts that say `running`: the API's, and those whose command was killed."""

    name: ClassVar[str] = "rollouts"
    interval: float

    def __init__(self, owner_url: str, settings: Settings, *, interval: float = 1.0) -> None:
        """`interval` is in seconds; the settings are for the rollouts of stragglers."""
        self.interval = interval
        self._runner = RolloutRunner(owner_url)
        self._settings = settings

    async def run(self, engine: AsyncEngine) -> bool:
        """Carry out the running one, if there is one and nobody else does; returns when it has ended."""
        async with AsyncSession(engine) as session, session.begin():
            running = (
                await session.execute(select(Rollout.id, Rollout.target).where(Rollout.status == "running"))
            ).one_or_none()
        if running is None:
            return await self._start_for_stragglers(engine)
        try:
            older_revisions(running.target)
        except UnknownRevisionError:
            # It waits for a provisioner of the release that started it.
            return False
        ended = await self._runner.run(running.id, wait=False)
        if ended is not None and (ended.failed or ended.status == "halted"):
            _log.warning(
                "tenants could not be migrated",
                rollout=str(running.id),
                failed=ended.failed,
                reason=ended.halted_reason,
            )
        return False

    async def _start_for_stragglers(self, engine: AsyncEngine) -> bool:
        """Start one for active tenants that came at an older revision after everybody had been brought to this head.

        An API of the release before has claimed a schema of its own, say. A tenant that failed is no straggler: it
        would fail again, every second.
        """
        target = head("tenant")
        older = older_revisions(target)
        if not older:
            return False
        async with AsyncSession(engine) as session, session.begin():
            last = (
                await session.execute(
                    select(Rollout.target, Rollout.status)
                    .where(Rollout.only.is_(None))
                    .order_by(Rollout.id.desc())
                    .limit(1)
                )
            ).one_or_none()
            if last is None or last.status != "done" or last.target != target:
                return False
            late = await session.scalars(
                text(
                    f"""
                    SELECT t.slug FROM platform.tenant t
                     WHERE {HAS_SCHEMA} AND t.status = 'active' AND t.revision = ANY (:older)
                       AND NOT EXISTS (SELECT FROM platform.rollout_tenant f
                                         JOIN platform.rollout r ON r.id = f.rollout_id
                                        WHERE f.tenant_id = t.id AND f.status = 'failed' AND r.target = :target)
                     ORDER BY t.id LIMIT :limit
                    """  # noqa: S608 - a constant
                ),
                {"older": older, "target": target, "limit": _AT_ONCE},
            )
            slugs = list(late)
            if not slugs:
                return False
            try:
                made = await start_rollout(
                    session,
                    target=target,
                    canary=0,
                    concurrency=self._settings.rollout_concurrency,
                    halt_after=len(slugs),
                    lock_timeout=int(self._settings.rollout_lock_timeout * 1000),
                    max_attempts=self._settings.rollout_attempts,
                    only=slugs,
                    requested_by=PROVISIONER,
                )
            except ConflictException:
                return True
            _log.info("rollout for tenants that came late", rollout=str(made.id), tenants=len(slugs))
        return True
