"""The warm pool: schemas at head with their roles, grants and first rows, which wait for their tenants.

Whoever creates a tenant takes one by deleting its row, in the transaction that makes the tenant's; the id of the schema
becomes the tenant's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

import structlog
from sqlalchemy import and_, delete, exists, func, insert, not_, select
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from tenantry.platform.provisioning.fingerprint import fingerprint
from tenantry.platform.provisioning.models import WarmSchema
from tenantry.platform.provisioning.reference import create_verified, reference
from tenantry.platform.provisioning.schema import drop_schemas, enter_schema
from tenantry.tenancy.migrations import head
from tenantry.tenancy.models import Tenant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from tenantry.kernel.feature import SeedHook
    from tenantry.tenancy.connection import DriverConnection

__all__ = ("WarmPool",)

# Any number will do, as long as nothing else takes the same advisory lock.
_LOCK = 0x7E4A_900F
_LONGEST = 60.0
"""Seconds between two attempts that fail."""

_log = structlog.get_logger(__name__)


class WarmPool:
    """Keeps as many schemas ready as the settings say, all of this release's revision."""

    name: ClassVar[str] = "warm pool"

    def __init__(self, *, size: int, batch: int, interval: float, seeds: Sequence[SeedHook]) -> None:
        """`batch` is how many are made, or dropped, in one transaction; `interval` is in seconds.

        It looks by the clock and is not woken by those who take one: then each would be replaced by itself, and every
        GRANT makes every connection of the deployment read the memberships of roles again.
        """
        self.interval = interval
        self._interval = interval
        self._size = size
        self._batch = batch
        self._seeds = tuple(seeds)

    async def run(self, engine: AsyncEngine) -> bool:
        """Make or drop one batch; True if there may be more to do.

        Raises:
            OperationFailed: a schema is not what Alembic would make; nothing was made.
        """
        try:
            more = await self._look(engine)
        except BaseException:
            # What cannot be made now is not tried again every second with all that it costs.
            self.interval = max(self._interval, min(self.interval * 2, _LONGEST))
            raise
        self.interval = self._interval
        return more

    async def _look(self, engine: AsyncEngine) -> bool:
        expected = fingerprint(await reference(engine, head("tenant")))
        async with engine.begin() as connection:
            # Until the transaction ends. Two provisioners that count at once would both fill what is missing.
            if not await connection.scalar(select(func.pg_try_advisory_xact_lock(_LOCK))):
                return False
            fresh = and_(
                WarmSchema.revision == head("tenant"), WarmSchema.fingerprint == expected, not_(_is_a_tenants())
            )
            if dropped := await self._drop(connection, not_(fresh), self._batch):
                _log.info("stale warm schemas dropped", count=dropped)
                return True
            ready: int = await connection.scalar(select(func.count()).select_from(WarmSchema).where(fresh)) or 0
            if ready > self._size:
                dropped = await self._drop(connection, fresh, min(ready - self._size, self._batch))
                _log.info("surplus warm schemas dropped", count=dropped)
                return dropped > 0
            if missing := min(self._size - ready, self._batch):
                await self._make(connection, engine, missing)
                _log.info("warm schemas made", count=missing)
            return ready + missing < self._size

    async def _drop(self, connection: AsyncConnection, which: ColumnElement[bool], count: int) -> int:
        """Drop up to `count` of them, the oldest first; those that somebody takes at this moment are passed by."""
        rows = await connection.execute(
            select(WarmSchema.id, _is_a_tenants())
            .where(which)
            .order_by(WarmSchema.id)
            .limit(count)
            .with_for_update(of=WarmSchema, skip_locked=True)
        )
        gone = rows.all()
        await connection.execute(delete(WarmSchema).where(WarmSchema.id.in_([row[0] for row in gone])))
        # Somebody wrote such a row by hand, or restored half a database. The row goes, the tenant's schema stays.
        if ours := [tenant_id for tenant_id, is_a_tenants in gone if not is_a_tenants]:
            await drop_schemas(await _driver(connection), ours)
        return len(gone)

    async def _make(self, connection: AsyncConnection, engine: AsyncEngine, count: int) -> None:
        made = [uuid7() for _ in range(count)]
        seal = await create_verified(connection, engine, made)
        driver = await _driver(connection)
        for tenant_id in made:
            await enter_schema(driver, tenant_id)
            async with AsyncSession(connection, join_transaction_mode="rollback_only") as session:
                for seed in self._seeds:
                    await seed(session)
                await session.flush()
        revision = head("tenant")
        await connection.execute(
            insert(WarmSchema), [{"id": one, "revision": revision, "fingerprint": seal} for one in made]
        )


def _is_a_tenants() -> ColumnElement[bool]:
    return exists(select(Tenant.id).where(Tenant.id == WarmSchema.id).correlate(WarmSchema))


async def _driver(connection: AsyncConnection) -> DriverConnection:
    return cast("DriverConnection", (await connection.get_raw_connection()).driver_connection)
