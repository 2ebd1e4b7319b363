"""How many requests each organization makes in a day, counted where all processes can.

The counter is `requests` in the hash `{t:<id>}:use:<day>`, kept for three days; whoever bills drains it. Most requests
are counted by the script that admits them (`tenantry.tenancy.rates`). Others are counted here, in the process, and
handed over a second later: those that no limit is on, and all of them while Redis is away. What becomes of the
counters is `tenantry.tenancy.use`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import time
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import structlog
from prometheus_client import Counter
from redis.exceptions import ResponseError

from tenantry.kernel.line import RedisAway, Script
from tenantry.tenancy.redis import tenant_key
from tenantry.tenancy.use import DIRTY, TTL, member, use_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redis.asyncio import Redis

    from tenantry.kernel.line import Line

__all__ = ("UseCounter", "script_source")

_PLACES = 10_000
"""Days of organizations that are counted in the process. Two megabytes; beyond it, requests are not counted."""
_TOGETHER = 500
_SENT_AGAIN = 86_400

_uncounted = Counter("tenantry_uncounted_requests", "Requests of which no process or server could keep the count.")

_log = structlog.get_logger(__name__)


@cache
def script_source(name: str) -> str:
    """The text of a script of this package."""
    return (files("tenantry.tenancy") / f"{name}.lua").read_text("utf-8")


class UseCounter:
    """Counts the requests of organizations. Belongs to one event loop.

    Args:
        redis: says which scripts it is to know.
        line: on which the counts travel.
        clock: gives the Unix time, of which the day is taken.
        interval: seconds between two times of handing over.
    """

    def __init__(
        self, redis: Redis, line: Line, *, clock: Callable[[], float] = time.time, interval: float = 1.0
    ) -> None:
        self._line = line
        self._clock = clock
        self._interval = interval
        self._script = Script(redis, script_source("count"))
        self._today = ""
        self._tomorrow_at = 0.0
        self._pending: dict[tuple[UUID, str], int] = {}
        self._handing: dict[tuple[UUID, str], tuple[str, int]] = {}
        """What is on its way, each under a name by which Redis adds it once, however often it is sent."""
        self._is_full = False

    @property
    def today(self) -> str:
        """As in the counters' keys."""
        now = self._clock()
        if now >= self._tomorrow_at or not self._today:
            day = datetime.datetime.fromtimestamp(now, datetime.UTC).date()
            midnight = datetime.datetime.combine(day, datetime.time(), datetime.UTC)
            self._today, self._tomorrow_at = day.isoformat(), midnight.timestamp() + 86_400
        return self._today

    def add(self, tenant_id: UUID) -> None:
        """Count a request in the process."""
        place = (tenant_id, self.today)
        count = self._pending.get(place)
        if count is None:
            if len(self._pending) + len(self._handing) >= _PLACES:
                _uncounted.inc()
                if not self._is_full:
                    self._is_full = True
                    _log.warning("more organizations than can be counted without Redis", most=_PLACES)
                return
            count = 0
        self._pending[place] = count + 1

    async def hand_over(self) -> None:
        """Give Redis what was counted here; what it does not confirm is kept, and sent again."""
        while (self._pending or self._handing) and self._line.is_open:
            for place in list(self._pending)[: max(0, _TOGETHER - len(self._handing))]:
                if place not in self._handing:
                    self._handing[place] = uuid4().hex, self._pending.pop(place)
            places = list(self._handing)
            if not all(await asyncio.gather(*map(self._hand, places))):
                return
        self._is_full = False

    async def _hand(self, place: tuple[UUID, str]) -> bool:
        tenant_id, day = place
        name, amount = self._handing[place]
        when = datetime.date.fromisoformat(day)
        keys = [use_key(tenant_id, when), tenant_key(tenant_id, "counted", name)]
        try:
            await self._line.run(self._script, keys, amount, TTL, _SENT_AGAIN)
        except RedisAway:
            return False
        except ResponseError as error:
            _uncounted.inc(amount)
            _log.error("requests could not be counted", count=amount, error=repr(error))
        del self._handing[place]
        # After it was added: whoever writes it down finds it then.
        self._line.tell("SADD", DIRTY, member((when, tenant_id)))
        return True

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hand over, every second and at the end."""
        closing = asyncio.Event()

        async def repeat() -> None:
            while not closing.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._interval):
                        await closing.wait()
                await self.hand_over()

        task = asyncio.create_task(repeat(), name="use-counter")
        try:
            yield
        finally:
            closing.set()
            # Not cancelled: what was counted is to be handed over, and a message ends by itself.
            await task
            if left := sum(self._pending.values()) + sum(amount for _, amount in self._handing.values()):
                _uncounted.inc(left)
                _log.warning("requests are not counted, since Redis is away", count=left)
