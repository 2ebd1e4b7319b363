"""Every process's view of the tenants, at most half a second old.

Filled from `platform.tenant` over a connection of its own. A NOTIFY wakes it at once, but is only a hint: LISTEN
needs a session of its own (a pooler in transaction mode has none to give), and a half-open connection looks healthy
for minutes. So it also polls. What it polls is gap-free: each row carries the transaction that last changed it, and a
poll reads every row changed by a transaction that the poll before could not have seen whole (`pg_snapshot_xmin`).
A counter would either miss a transaction that commits late (a sequence) or make all changes queue for one row.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import msgspec
import structlog

from tenantry.kernel.errors import UnavailableException
from tenantry.tenancy.connection import ScopedConnection
from tenantry.tenancy.context import ScopeTimes, TenantContext, control_scope
from tenantry.tenancy.plan import PlanLimits, merge_limits
from tenantry.tenancy.release import follower_name, served_range

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("CHANNEL", "TenantRegistry")

CHANNEL = "tenantry_tenant"

_CHANGES = """
SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS horizon,
       (SELECT coalesce(json_agg(json_build_object(
            'id', t.id, 'slug', t.slug, 'name', t.name, 'status', t.status, 'status_reason', t.status_reason,
            'revision', t.revision, 'plan', t.plan, 'overrides', t.overrides)), '[]')
          FROM tenant t JOIN plan p ON p.slug = t.plan
         WHERE t.changed_xid >= $1 OR p.changed_xid >= $1)::text AS rows,
       (SELECT coalesce(json_agg(to_jsonb(p)), '[]') FROM plan p)::text AS plans
"""

_log = structlog.get_logger(__name__)


class _Row(msgspec.Struct):
    id: UUID
    slug: str
    name: str
    status: str
    status_reason: str | None
    revision: str | None
    plan: str
    overrides: dict[str, Any]


_decode_rows = msgspec.json.Decoder(list[_Row]).decode
_decode_plans = msgspec.json.Decoder(list[dict[str, Any]]).decode


class TenantRegistry:
    """Tenants by id and by slug, kept fresh by a task of its own."""

    def __init__(
        self,
        url: str,
        *,
        times: ScopeTimes | None = None,
        poll_interval: float = 0.5,
        stale_after: float = 5.0,
        connect_timeout: float = 5.0,
    ) -> None:
        """`url` is a `postgresql://` address that leads to a session, not to a transaction pooler, for LISTEN to work.

        Times are in seconds. A registry that could not be refreshed for `stale_after` answers nothing at all: serving
        a tenant that was suspended meanwhile would break a promise, a 503 does not.

        Raises:
            RevisionError: the release does not know which revisions it serves.
        """
        self._url = url
        self._times = times or ScopeTimes()
        self._scope = control_scope(self._times, read_only=True)
        self._poll_interval = poll_interval
        self._stale_after = stale_after
        self._connect_timeout = connect_timeout
        # Once, at the start: a release's files do not change while it runs.
        served = served_range()
        self._served = frozenset(served.revisions)
        self._name = follower_name(served.newest)
        self._by_id: dict[UUID, TenantContext] = {}
        self._by_slug: dict[str, TenantContext] = {}
        self._horizon = 0
        self._fresh_at = float("-inf")
        self._polls = 0
        self._wake = asyncio.Event()
        self._polled = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._polling = False
        self._clock: Callable[[], float] = time.monotonic

    async def start(self) -> None:
        """Begin to follow the tenants; returns once they were read, or after `connect_timeout` without them."""
        self._task = asyncio.create_task(self._follow(), name="tenant-registry")
        with contextlib.suppress(UnavailableException):
            await self.refresh()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    @property
    def is_fresh(self) -> bool:
        return self._clock() - self._fresh_at <= self._stale_after

    @property
    def fresh_at(self) -> float:
        """When the last poll that succeeded began, on the monotonic clock; minus infinity where none has."""
        return self._fresh_at

    def by_id(self, tenant_id: UUID) -> TenantContext | None:
        """The tenant, or None if there is none.

        Raises:
            UnavailableException: the registry is too old to be believed.
        """
        self._require_fresh()
        return self._by_id.get(tenant_id)

    def by_slug(self, slug: str) -> TenantContext | None:
        """As `by_id`, by the tenant's present slug."""
        self._require_fresh()
        return self._by_slug.get(slug)

    def all(self) -> list[TenantContext]:
        return list(self._by_id.values())

    async def find_slug(self, slug: str) -> TenantContext | None:
        """As `by_slug`, but a slug that is not known is looked for once more: it may have been created just now,
        by another process, and whoever created it was told that it is ready."""
        if (tenant := self.by_slug(slug)) is None:
            await self.refresh()
            tenant = self.by_slug(slug)
        return tenant

    async def find_id(self, tenant_id: UUID) -> TenantContext | None:
        """As `find_slug`, by id, and for one that is not ready as well: its first token says that it is."""
        if (tenant := self.by_id(tenant_id)) is None or tenant.status == "provisioning":
            await self.refresh()
            tenant = self.by_id(tenant_id)
        return tenant

    async def refresh(self) -> None:
        """Wait for a poll that begins after this call. Callers at the same time share one.

        Raises:
            UnavailableException: none succeeded in time.
        """
        # The poll that is under way may have begun before the change that the caller looks for: wait for the next.
        target = self._polls + 2 if self._polling else self._polls + 1
        self._wake.set()
        try:
            async with asyncio.timeout(self._connect_timeout), self._polled:
                await self._polled.wait_for(lambda: self._polls >= target)
        except TimeoutError:
            raise UnavailableException("The tenant registry cannot be refreshed.") from None

    async def next_poll(self, seconds: float) -> None:
        """Wait until the tenants have been looked at again, which a change of one brings about; `seconds` at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._polled:
                await self._polled.wait()

    def _require_fresh(self) -> None:
        if not self.is_fresh:
            raise UnavailableException("The tenant registry has lost touch with the database.")

    async def _follow(self) -> None:
        delay = 0.1
        while True:
            connection: ScopedConnection | None = None
            try:
                connection = await asyncpg.connect(
                    self._url,
                    connection_class=ScopedConnection,
                    timeout=self._connect_timeout,
                    command_timeout=max(1.0, self._poll_interval * 2),
                    statement_cache_size=0,
                    server_settings={"application_name": self._name},
                )
                await connection.add_listener(CHANNEL, self._notified)
                # Whatever was missed while away: everything is read again, and what is gone is forgotten.
                self._horizon = 0
                while True:
                    self._wake.clear()
                    await self._poll(connection)
                    delay = 0.1
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._poll_interval):
                            await self._wake.wait()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    # Told to stop while it asked a connection that was gone: that error took the cancellation's place.
                    raise asyncio.CancelledError from error
                # Whatever it is: a registry that stopped following would take the service down with it.
                _log.warning("tenant registry lost its connection", error=repr(error), retry_in=delay)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 1.0)
            finally:
                if connection is not None:
                    connection.terminate()

    def _notified(self, *_: Any) -> None:
        self._wake.set()

    async def _poll(self, connection: ScopedConnection) -> None:
        begun_at = self._clock()
        self._polling = True
        try:
            connection.arm(self._scope)
            async with connection.transaction():
                record = await connection.fetchrow(_CHANGES, self._horizon)
        finally:
            self._polling = False
        if record is None:  # pragma: no cover - an aggregate always answers
            return
        contexts = []
        if rows := _decode_rows(record["rows"]):
            plans = {plan["slug"]: plan for plan in _decode_plans(record["plans"])}
            # Tenants without limits of their own, that is nearly all, share their plan's.
            shared = {slug: merge_limits(slug, plan, {}) for slug, plan in plans.items()}
            contexts = [
                self._context(
                    row, merge_limits(row.plan, plans[row.plan], row.overrides) if row.overrides else shared[row.plan]
                )
                for row in rows
            ]
        if refused := [context.slug for context in contexts if context.is_active and not context.served]:
            _log.warning("tenants at a revision that this release does not serve", count=len(refused), first=refused[0])
        if self._horizon == 0:
            self._by_id, self._by_slug = {}, {}
        for context in contexts:
            before = self._by_id.get(context.id)
            if before == context:
                continue
            if before is not None and before.slug != context.slug and self._by_slug.get(before.slug) is before:
                del self._by_slug[before.slug]
            if context.status == "purged":
                # A tombstone: its credentials are those of nobody.
                self._by_id.pop(context.id, None)
                continue
            self._by_id[context.id] = context
            self._by_slug[context.slug] = context
        self._horizon = int(record["horizon"])
        self._fresh_at = begun_at
        async with self._polled:
            self._polls += 1
            self._polled.notify_all()

    def _context(self, row: _Row, plan: PlanLimits) -> TenantContext:
        return TenantContext.build(
            tenant_id=row.id,
            slug=row.slug,
            name=row.name,
            status=row.status,
            status_reason=row.status_reason,
            revision=row.revision,
            served=row.revision in self._served,
            plan=plan,
            times=self._times,
        )
