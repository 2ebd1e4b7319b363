"""From the outbox to the queues: every worker does it, and none leads.

A few rows of every tenant at a time, so that nobody waits behind a neighbour's flood. A row is enqueued under its own
id, which Redis refuses while such a job waits or runs: a relay that is killed before it could mark what it has enqueued
does no harm. A row stays until the job has ended; one that is still there long after its job must have ended has been
lost by Redis, and is relayed again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog
from redis.exceptions import RedisError
from saq.job import Job as SaqJob
from sqlalchemy import text
from uuid_utils.compat import uuid7

from tenantry.jobs.patience import answer
from tenantry.jobs.ring import PLATFORM_QUEUE
from tenantry.tenancy.database import LOST
from tenantry.tenancy.redis import platform_key, queue_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row

    from tenantry.jobs.definition import Job
    from tenantry.jobs.fair import FairQueue
    from tenantry.jobs.gate import Gate
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.scope import Scope

__all__ = ("TOGETHER", "Relay")

_EACH = 50
"""Rows of one tenant at a time."""
_MOST = 1000
_RIPEN_MOST = 5000
"""Rows that become due at a time."""
TOGETHER = 20
"""Rows that are enqueued at a time, each over a connection of its own."""
_SHORTEST, _LONGEST = 0.02, 1.0
"""Seconds between two looks: short after there was something, long after there was nothing."""

# First of all, what has become due: nothing else makes a row `pending` that was written down for later. Those that are
# due the longest first, and not all of a flood in one statement, whose time is limited.
_RIPEN = text("""
UPDATE platform.outbox SET status = 'pending', updated_at = now()
 WHERE id IN (SELECT id FROM platform.outbox WHERE status = 'later' AND due <= now()
               ORDER BY due LIMIT :most FOR UPDATE SKIP LOCKED)
""")

# The tenants that have something to do now, each found by one step through the index, whoever has how many rows. Of
# each the first few, unless another relay is at them.
_TAKE = text("""
WITH RECURSIVE waiting (tenant_id) AS (
    (SELECT tenant_id FROM platform.outbox WHERE status = 'pending' AND tenant_id IS NOT NULL
      ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT o.tenant_id FROM platform.outbox o
             WHERE o.status = 'pending' AND o.tenant_id > w.tenant_id ORDER BY o.tenant_id LIMIT 1)
      FROM waiting w WHERE w.tenant_id IS NOT NULL
)
SELECT r.* FROM (SELECT tenant_id FROM waiting WHERE tenant_id IS NOT NULL) w
 CROSS JOIN LATERAL (
    SELECT o.id, o.tenant_id, o.name, o.arguments, o.retries, o.timeout, o.meta FROM platform.outbox o
     WHERE o.status = 'pending' AND o.tenant_id = w.tenant_id AND o.due <= now()
     ORDER BY o.due, o.id LIMIT :each FOR UPDATE SKIP LOCKED) r
 LIMIT :most
""")
_TAKE_OWN = text("""
SELECT o.id, o.tenant_id, o.name, o.arguments, o.retries, o.timeout, o.meta FROM platform.outbox o
 WHERE o.status = 'pending' AND o.tenant_id IS NULL AND o.due <= now()
 ORDER BY o.due, o.id LIMIT :each FOR UPDATE SKIP LOCKED
""")

# What all of its attempts may take, their pauses included, and as much again.
_MARK = text("""
UPDATE platform.outbox SET status = 'relayed', updated_at = now(),
       again_at = now() + make_interval(secs => 120 + 2 * retries * (timeout + 60))
 WHERE id = ANY(:ids)
""")

_AGAIN = text(
    "UPDATE platform.outbox SET status = 'pending', updated_at = now() WHERE status = 'relayed' AND again_at <= now()"
)
_ALL_AGAIN = text("UPDATE platform.outbox SET status = 'pending', updated_at = now() WHERE status = 'relayed'")

_RESEND = 15.0
"""Seconds between two looks for rows that Redis has lost one by one."""

_log = structlog.get_logger(__name__)


class Relay:
    """Runs in every worker."""

    def __init__(
        self, *, queue: FairQueue, database: Database, control: Scope, jobs: dict[str, Job], gate: Gate
    ) -> None:
        self._queue = queue
        self._database = database
        self._control = control
        self._jobs = jobs
        self._gate = gate
        self._marker = platform_key("jobs", "marker")
        self._resent_at = float("-inf")

    async def run(self) -> None:
        """Until it is cancelled."""
        pause = _SHORTEST
        away = False
        while True:
            try:
                await self._resend()
                moved = await self.relay()
                away = False
            except (*LOST, RedisError) as error:
                if not away:
                    _log.warning("the relay waits", error=repr(error))
                away, moved = True, 0
            if moved == 0:
                pause = min(pause * 1.5, _LONGEST)
                await asyncio.sleep(pause)
            else:
                pause = _SHORTEST

    async def relay(self) -> int:
        """Enqueue what is due; how many rows.

        Raises:
            redis.exceptions.RedisError, OSError, sqlalchemy.exc.SQLAlchemyError, asyncpg.PostgresError: one of the two
                is away; nothing is marked, and all of it is relayed again.
        """
        async with self._database.transaction(self._control) as transaction:
            session = transaction.session
            await session.execute(_RIPEN, {"most": _RIPEN_MOST})
            own = (await session.execute(_TAKE_OWN, {"each": _EACH})).all()
            rows = [*own, *(await session.execute(_TAKE, {"each": _EACH, "most": _MOST})).all()]
            if not rows:
                return 0
            await self._enqueue(rows)
            await transaction.session.execute(_MARK, {"ids": [row.id for row in rows]})
        return len(rows)

    async def _enqueue(self, rows: Sequence[Row[Any]]) -> None:
        for start in range(0, len(rows), TOGETHER):
            await asyncio.gather(*(self._enqueue_one(row) for row in rows[start : start + TOGETHER]))

    async def _enqueue_one(self, row: Row[Any]) -> None:
        name = PLATFORM_QUEUE if row.tenant_id is None else queue_name(row.tenant_id)
        queue = self._queue.queue_of(name)
        queue.share = None if row.tenant_id is None else self._gate.share(row.tenant_id)
        job = self._jobs.get(row.name)
        await queue.enqueue(
            SaqJob(
                function=row.name,
                kwargs={"arguments": row.arguments},
                key=f"ob:{row.id}",
                timeout=row.timeout,
                retries=row.retries,
                ttl=3600 if job is None else job.keep,
                retry_delay=2.0 if job is None else job.backoff,
                retry_backoff=3600.0,
                meta={"outbox": str(row.id), "told": row.meta},
            )
        )

    async def _resend(self) -> None:
        """Relay again what Redis has lost: all of it where Redis has come back empty."""
        loop = asyncio.get_running_loop()
        marked = await answer(self._queue.redis.exists(self._marker))
        if marked and loop.time() - self._resent_at < _RESEND:
            return
        async with self._database.transaction(self._control) as transaction:
            await transaction.session.execute(_AGAIN if marked else _ALL_AGAIN)
        if not marked:
            _log.warning("Redis knows nothing of this deployment: whatever is in the outbox is relayed again")
            # After the commit: whoever is killed in between relays again, which harms nobody.
            await self._queue.redis.set(self._marker, str(uuid7()))
        self._resent_at = loop.time()
