"""What tenants use, counted in Redis until it is written down.

| key                         | fields                | who counts                                               |
|-----------------------------|-----------------------|----------------------------------------------------------|
| `{t:<id>}:use:<day>`        | `requests`            | the script that every request runs, in the tenant's slot |
| `{platform}:use-jobs:<day>` | tenants' ids          | the script that ends a job, in the slot of the queues    |
| `{platform}:use-dirty`      | `<day> <tenant's id>` | both: of whom there may be something to write down       |

Days are in UTC. The counters only ever grow, and nobody takes anything out of them: whoever writes them down remembers
how far he had come (`tenantry.platform.usage.draining`), so that a reader who is killed has neither lost nor doubled
anything. The field `epoch` tells a counter that was lost, and begins anew, from one that goes on. It is given by the
first who reads: who counts need not know of it.
"""

from __future__ import annotations

import asyncio
import datetime
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import structlog
from redis.exceptions import RedisError

from tenantry.kernel.errors import ValidationFailedException
from tenantry.tenancy.redis import platform_key, tenant_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

    from redis.asyncio import Redis

__all__ = (
    "COUNTED_DAYS",
    "DIRTY",
    "JOBS",
    "TTL",
    "Counters",
    "Mark",
    "Uncounted",
    "UseMarks",
    "add_requests",
    "forget_use",
    "jobs_key",
    "marked",
    "member",
    "period",
    "read_counters",
    "read_uncounted",
    "release_marks",
    "take_marks",
    "today",
    "use_key",
)

TTL = 3 * 86_400
"""Seconds that a counter outlives its last request: as long may nobody write it down."""
COUNTED_DAYS = 4
"""Of so many days, the present one included, there may be counters."""
DIRTY = platform_key("use-dirty")
JOBS = platform_key("use-jobs")
_TAKEN = platform_key("use-taken")
_BATCH = 500
"""Commands that are sent at a time: a few milliseconds, in which Redis serves nobody else."""
_LONGEST = 400
"""Days that may be asked for at a time: a year, and some to compare its ends."""

Mark = tuple[datetime.date, UUID]
"""A day, and a tenant that may have used something on it."""

_log = structlog.get_logger(__name__)


def today() -> datetime.date:
    """In UTC, as all days here."""
    return datetime.datetime.now(datetime.UTC).date()


def use_key(tenant_id: UUID, day: datetime.date) -> str:
    """Where a tenant's requests of a day are counted: `HINCRBY <key> requests 1`, and `EXPIRE <key>` of `TTL`."""
    return tenant_key(tenant_id, "use", day.isoformat())


def jobs_key(day: datetime.date) -> str:
    """Where all tenants' jobs of a day are counted, in the slot of the queues."""
    return platform_key("use-jobs", day.isoformat())


def period(
    since: datetime.date | None, until: datetime.date | None, *, now: datetime.date | None = None
) -> tuple[datetime.date, datetime.date]:
    """The days that are asked for, both included; by default from the first of the last one's month until today.

    Raises:
        ValidationFailedException: they are in the wrong order, or too many.
    """
    last = until or now or today()
    first = since or last.replace(day=1)
    if first > last:
        raise ValidationFailedException.of("from", f"Expected a day that is not after {last}.", source="query")
    if (last - first).days >= _LONGEST:
        raise ValidationFailedException.of("from", f"Expected at most {_LONGEST} days.", source="query")
    return first, last


@dataclass(frozen=True, slots=True)
class Counters:
    """What Redis has counted of a tenant on a day; without an epoch nobody has written any of it down."""

    requests: int = 0
    requests_epoch: str | None = None
    jobs: int = 0
    jobs_epoch: str | None = None

    def __bool__(self) -> bool:
        return bool(self.requests or self.jobs)


async def read_counters(redis: Redis, marks: Sequence[Mark], *, claim: bool = False) -> list[Counters]:
    """What is counted, in the order of `marks`; two round trips for some hundred of them.

    With `claim`, a counter without an epoch is given one: by whoever is about to write it down, and before.

    Raises:
        redis.RedisError: Redis is away.
    """
    found: list[Counters] = []
    for some in _batches(marks, _BATCH):
        days = sorted({day for day, _ in some})
        if claim:
            await _give_epochs(redis, some, days)
        async with redis.pipeline(transaction=False) as pipe:
            for day, tenant_id in some:
                pipe.hmget(use_key(tenant_id, day), ["requests", "epoch"])
            for day in days:
                pipe.hmget(jobs_key(day), ["epoch", *(str(tenant) for each, tenant in some if each == day)])
            answers = await pipe.execute()
        jobs: dict[Mark, tuple[int, str | None]] = {}
        for day, (epoch, *counts) in zip(days, answers[len(some) :], strict=True):
            named = [mark for mark in some if mark[0] == day]
            jobs |= {mark: (int(count or 0), _text(epoch)) for mark, count in zip(named, counts, strict=True)}
        found += [
            Counters(int(requests or 0), _text(epoch), *jobs[mark])
            for mark, (requests, epoch) in zip(some, answers, strict=False)
        ]
    return found


@dataclass(frozen=True, slots=True)
class Uncounted:
    """What was used on a day and is in no row yet."""

    requests: int = 0
    jobs: int = 0


async def read_uncounted(
    redis: Redis, tenant_id: UUID, since: datetime.date, until: datetime.date, written: Mapping[datetime.date, Any]
) -> dict[datetime.date, Uncounted] | None:
    """What is not written down yet of those days, where there is anything; None while Redis is away.

    Args:
        redis: where it is counted.
        tenant_id: whose use.
        since: the first day.
        until: the last one.
        written: by their day, the rows that were read before, with `requests_epoch`, `requests_seen` and the same of
            jobs.
    """
    now = today()
    ages = (now - datetime.timedelta(days=age) for age in range(COUNTED_DAYS))
    days = [day for day in ages if since <= day <= until]
    try:
        counted = await read_counters(redis, [(day, tenant_id) for day in days]) if days else []
    except (RedisError, OSError, TimeoutError) as error:
        _log.warning("what was used in the last minute is not known", error=repr(error))
        return None
    found = {}
    for day, counters in zip(days, counted, strict=True):
        row = written.get(day)
        more = Uncounted(
            _beyond(counters.requests, counters.requests_epoch, row and row.requests_epoch, row and row.requests_seen),
            _beyond(counters.jobs, counters.jobs_epoch, row and row.jobs_epoch, row and row.jobs_seen),
        )
        if more.requests or more.jobs:
            found[day] = more
    return found


def _beyond(count: int, epoch: str | None, written_epoch: str | None, seen: int | None) -> int:
    return max(0, count - (seen or 0)) if epoch is not None and epoch == written_epoch else count


async def _give_epochs(redis: Redis, marks: Sequence[Mark], days: Sequence[datetime.date]) -> None:
    keys = [use_key(tenant_id, day) for day, tenant_id in marks] + [jobs_key(day) for day in days]
    async with redis.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.hexists(key, "epoch")
            pipe.exists(key)
        answers = await pipe.execute()
    new = [key for key, known, there in zip(keys, answers[::2], answers[1::2], strict=True) if there and not known]
    if not new:
        return
    async with redis.pipeline(transaction=False) as pipe:
        for key in new:
            pipe.hsetnx(key, "epoch", uuid4().hex)
            # It may have gone since it was looked at, and would be made anew, for good.
            pipe.expire(key, TTL)
        await pipe.execute()


async def take_marks(redis: Redis) -> list[Mark]:
    """Of whom there may be something to write down; they stay marked until `release_marks`, whoever is killed.

    Raises:
        redis.RedisError: Redis is away.
    """
    async with redis.pipeline(transaction=True) as pipe:
        pipe.sunionstore(_TAKEN, [_TAKEN, DIRTY])
        pipe.delete(DIRTY)
        pipe.expire(_TAKEN, TTL)
        pipe.smembers(_TAKEN)
        members: set[bytes] = (await pipe.execute())[-1]
    return sorted(_mark_of(member) for member in members)


async def release_marks(redis: Redis, marks: Iterable[Mark]) -> None:
    """Forget marks whose counters are written down."""
    if members := [member(mark) for mark in marks]:
        await _wait(redis.srem(_TAKEN, *members))


async def marked(redis: Redis, day: datetime.date) -> set[UUID]:
    """The tenants that are marked for a day, taken or not, and nothing is changed: who has used something lately.

    Raises:
        redis.RedisError: Redis is away.
    """
    members: set[bytes] = await _wait(redis.sunion([_TAKEN, DIRTY]))
    marks = (_mark_of(member) for member in members)
    return {tenant_id for each, tenant_id in marks if each == day}


async def add_requests(redis: Redis, tenant_id: UUID, day: datetime.date, count: int) -> None:
    """Add requests that could not be counted when they came, since Redis was away.

    Raises:
        redis.RedisError: it still is, and nobody knows whether they were added.
    """
    key = use_key(tenant_id, day)
    async with redis.pipeline(transaction=True) as pipe:
        pipe.hincrby(key, "requests", count)
        pipe.expire(key, TTL)
        await pipe.execute()
    await _wait(redis.sadd(DIRTY, member((day, tenant_id))))


async def forget_use(redis: Redis, tenant_id: UUID) -> None:
    """Leave nothing of a tenant in what is all tenants'; the keys of its own are removed with all the others of it."""
    days = [today() - datetime.timedelta(days=age) for age in range(COUNTED_DAYS)]
    async with redis.pipeline(transaction=False) as pipe:
        for day in days:
            pipe.hdel(jobs_key(day), str(tenant_id))
        for key in (DIRTY, _TAKEN):
            pipe.srem(key, *(member((day, tenant_id)) for day in days))
        await pipe.execute()


class UseMarks:
    """The tenants that this process has served since it last told Redis so, which it does once a second.

    The script that counts a request can touch the tenant's slot alone, and the marks are in the platform's. Where a
    process is killed, the marks of its last second are lost, and no counter: every tenant is looked at a few times a
    day, marked or not (`measure_use`).
    """

    def __init__(self, redis: Redis, *, interval: float = 1.0) -> None:
        """`interval` is in seconds."""
        self._redis = redis
        self._interval = interval
        self._seen: set[UUID] = set()
        self._day = today()

    def note(self, tenant_id: UUID) -> None:
        """The tenant has used something just now."""
        self._seen.add(tenant_id)

    async def flush(self) -> None:
        """Tell Redis; where it is away, the next time."""
        now = today()
        # Who was seen since the last flush was so on either side of midnight.
        days = sorted({self._day, now})
        seen, self._seen = self._seen, set()
        try:
            for some in _batches([(day, tenant_id) for day in days for tenant_id in seen], _BATCH):
                async with self._redis.pipeline(transaction=False) as pipe:
                    pipe.sadd(DIRTY, *(member(mark) for mark in some))
                    pipe.expire(DIRTY, TTL)
                    await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            self._seen |= seen
            _log.debug("who was served is not told yet", error=repr(error))
        else:
            self._day = now

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Tell Redis once in a while, and at the end."""
        task = asyncio.create_task(self._run(), name="use-marks")
        try:
            yield
        finally:
            # Until it has ended: Python 3.11 may lose a cancellation that comes while a command is on its way.
            while not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=1.0)
            await self.flush()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            if self._seen:
                await self.flush()


def member(mark: Mark) -> str:
    """How a mark is written in the sets of them."""
    day, tenant_id = mark
    return f"{day.isoformat()} {tenant_id}"


def _mark_of(member: bytes) -> Mark:
    day, _, tenant_id = member.decode().partition(" ")
    return datetime.date.fromisoformat(day), UUID(tenant_id)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def _batches(marks: Iterable[Mark], size: int) -> Iterator[list[Mark]]:
    rest = iter(marks)
    while some := list(islice(rest, size)):
        yield some


async def _wait(asked: Any) -> Any:
    # redis-py declares its commands for both of its clients; of this one each is to be awaited.
    return await asked
