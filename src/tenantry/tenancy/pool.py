"""The pool, which knows what its connections have met, and replaces those that have met too much.

PostgreSQL's backends remember the tables, columns, indexes and foreign keys of every tenant that they have served, and
forget nothing until they end (docs/scale.md has the figures). So a tenant is served by a connection that knows it, if
one is free: its answer takes half the time, and nobody else has to remember it. And a connection ends when it is old or
knows too many: between two requests, one at a time, and opened anew before anybody waits for it.
"""

from __future__ import annotations

import asyncio
import random
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import structlog
from prometheus_client import Counter
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util import greenlet_spawn
from sqlalchemy.util.queue import AsyncAdaptedQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.pool import PoolProxiedConnection

    from tenantry.tenancy.connection import ScopedConnection

__all__ = ("Retirement", "TenantPool")

_SWEEPS = 10
"""In the time that a connection is kept, how often idle ones are looked at."""

_first_visits = Counter(
    "tenantry_database_first_visits", "Transactions on a connection that had not served their tenant before."
)

_log = structlog.get_logger(__name__)


class _Stack(asyncio.LifoQueue[Any]):
    """Idle connections. The one that was used last comes first, since the others may be left to age."""

    wanted = ""
    """The role that is about to be taken on; empty where it does not matter."""

    # Documented as what a subclass may override. A waiter that is woken chooses by the latest wish: no more than that.
    def _get(self) -> Any:
        idle: list[Any] = self._queue  # type: ignore[attr-defined]
        wanted = self.wanted
        if not wanted or len(idle) == 1:
            return idle.pop()
        fewest, chosen = float("inf"), len(idle) - 1
        for place in range(len(idle) - 1, -1, -1):
            adapter = idle[place].dbapi_connection
            if adapter is None:
                continue
            met = adapter._connection.met
            if wanted in met:
                return idle.pop(place)
            if len(met) < fewest and not adapter._connection.is_closed():
                fewest, chosen = len(met), place
        # Nobody knows the tenant: it goes to whoever knows fewest.
        return idle.pop(chosen)


class _Idle(AsyncAdaptedQueue[Any]):
    @cached_property
    def _queue(self) -> _Stack:
        return _Stack(maxsize=self.maxsize)


class TenantPool(AsyncAdaptedQueuePool):
    """A pool whose connections are chosen by the tenant. Private parts of a pinned SQLAlchemy, guarded by a test."""

    _queue_class = _Idle
    _pool: _Idle

    def want(self, role: str) -> None:
        """Say whose connection is asked for next; to be followed by the asking, before anything else runs."""
        self._pool._queue.wanted = role

    @property
    def is_full(self) -> bool:
        return self._overflow >= self._max_overflow

    def grow(self) -> None:
        """Open one more connection, and leave it idle, unless there are as many as there may be."""
        if not self._inc_overflow():
            return
        try:
            entry = self._create_connection()
        except BaseException:
            self._dec_overflow()
            raise
        self._do_return_conn(entry)

    def renew(self, proxied: PoolProxiedConnection) -> None:
        """Close a connection that is checked out, and open another in its place, which is idle then."""
        self.want("")
        proxied.invalidate()
        # What was given back last comes first, and nobody has run meanwhile: it is that same place.
        self.connect().close()


class Retirement:
    """When a pool's connections end, and what takes their place.

    Args:
        age: seconds after which a connection is replaced, give or take a fifth, so that those which were opened
            together do not end together.
        tenants: how many roles a connection takes on at most before it is replaced; some do so up to a fifth earlier.
    """

    def __init__(
        self,
        pool: TenantPool,
        *,
        age: float,
        tenants: int,
        clock: Callable[[], float] = time.monotonic,
        chance: random.Random | None = None,
    ) -> None:
        self._pool = pool
        self._age = age
        self._tenants = tenants
        self._clock = clock
        self._chance = chance or random.Random()
        self._connections: WeakSet[ScopedConnection] = WeakSet()
        self._work: asyncio.Task[None] | None = None
        self._sweep_at = clock() + age / _SWEEPS

    def opened(self, connection: ScopedConnection) -> None:
        """Fix when a new connection is to end."""
        # The first one of an engine has been looked at by the dialect, as nobody.
        connection.met.clear()
        connection.retires_at = self._clock() + self._age * self._chance.uniform(0.8, 1.2)
        connection.most = max(1, round(self._tenants * self._chance.uniform(0.8, 1.0)))
        self._connections.add(connection)

    def meets(self, connection: ScopedConnection, role: str) -> None:
        """Note that the connection is about to serve a role, and have the pool grow where those there are know many.

        A connection that knows fewer tenants serves more of them from memory, and ends later.
        """
        if role in connection.met:
            return
        _first_visits.inc()
        if self._work is None and len(connection.met) * 4 > connection.most and not self._pool.is_full:
            self._begin(self._pool.grow)

    def takes(self, connection: ScopedConnection, proxied: PoolProxiedConnection) -> bool:
        """Whether the connection is replaced now instead of given back. One at a time: the others' turn comes.

        While it is being replaced its place in the pool is taken, so that there is never one too many.
        """
        now = self._clock()
        if now >= self._sweep_at:
            self._sweep(now)
        if self._work is not None or connection.is_closed():
            return False
        if len(connection.met) >= connection.most:
            reason = "tenants"
        elif now >= connection.retires_at:
            reason = "age"
        else:
            return False
        connection.ends_for = reason
        self._begin(self._pool.renew, proxied)
        return True

    def _begin(self, work: Callable[..., None], *arguments: Any) -> None:
        self._work = asyncio.create_task(self._run(work, *arguments), name="database-connections")

    async def _run(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            await greenlet_spawn(work, *arguments)
        except Exception as error:
            # Its place in the pool is empty; whoever comes next opens the connection, or is told that it cannot be.
            _log.warning("a connection could not be opened ahead of time", error=repr(error))
        finally:
            self._work = None

    def _sweep(self, now: float) -> None:
        """Close what has idled past its time: whoever uses another one never gives it back, and it remembers a lot."""
        self._sweep_at = now + self._age / _SWEEPS
        for connection in list(self._connections):
            if connection.is_idle and now >= connection.retires_at and not connection.is_closed():
                connection.met.clear()
                connection.ends_for = "idle"
                connection.terminate()

    async def close(self) -> None:
        """Wait for what is under way."""
        work = self._work
        if work is not None:
            await asyncio.wait({work})
