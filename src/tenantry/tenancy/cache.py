"""What is remembered of an organization for a while, so that it need not be read again.

A read is declared where it is written, with what it returns, for how long that is good, and which events end it:

    @cached(UsersPart, ttl=60, invalidated_by=("user.created", "user.activated", "user.deactivated"))
    async def read_users_part(session: AsyncSession) -> UsersPart: ...

`TenantCache.read(request, read_users_part)` then reads it at most once in a minute for each organization. The
organization is the request's, and no argument's. Values lie in its own keys; each is of a generation, and an event that
is committed begins a new one, so that who has read too early cannot store what is no longer so. Redis away, everything
is read as if there were no cache.
"""

from __future__ import annotations

import asyncio
import math
import random
import struct
import time
from collections.abc import Awaitable, Callable, Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, TypeVar
from uuid import UUID, uuid4

import msgspec
import structlog
from prometheus_client import Counter
from redis.exceptions import ResponseError

from tenantry.kernel.errors import NotAuthenticatedException
from tenantry.kernel.line import RedisAway
from tenantry.tenancy.redis import tenant_key

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.kernel.line import Line
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.request import TenantRequest

__all__ = ("ANY_EVENT", "CachedRead", "TenantCache", "cached", "cached_reads")

ANY_EVENT: Final = "*"
"""In `invalidated_by`: every event ends it."""

_LONGEST = 3600.0
_GENERATION_KEPT = 86_400
"""Seconds, and far longer than any value is: a generation is never forgotten while something of it is there."""
_LOCKED_FOR = 5_000
"""Milliseconds after which another process may read, though the first has not finished."""
_LOOKED_EVERY = 0.02
_OWED, _TOGETHER = 10_000, 100
_HEAD = struct.Struct(">16sd")
"""Before each value: its generation, and the seconds that reading it took."""

_reads = Counter(
    "tenantry_cache_reads",
    "Reads by way of the cache: hit, miss, early (read anew before its time), joined (of who was reading it already), "
    "bypassed (Redis away, or a request that writes), unreadable.",
    ["cache", "outcome"],
)

_log = structlog.get_logger(__name__)

T = TypeVar("T")
P = ParamSpec("P")


class CachedRead(Generic[P, T]):
    """A read that `cached` has declared. Called with a session, it reads."""

    def __init__(
        self,
        read: Callable[Concatenate[AsyncSession, P], Awaitable[T]],
        *,
        of: Any,
        name: str,
        ttl: float,
        invalidated_by: Iterable[str],
        most: int,
        wait: float,
        none_ttl: float | None,
    ) -> None:
        self._read = read
        self.name = name
        self.ttl = ttl
        self.invalidated_by = frozenset(invalidated_by)
        self.most = most
        self.wait = wait
        self.none_ttl = none_ttl
        self._decode = msgspec.msgpack.Decoder(of).decode
        # Another release's values are another's: what a field means may have changed with its type.
        self._form = blake2b(msgspec.json.encode(msgspec.json.schema(of)), digest_size=6).hexdigest()
        self._counts: dict[str, Callable[[], None]] = {}

    def __call__(self, session: AsyncSession, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        return self._read(session, *args, **kwargs)

    def ended_by(self, events: frozenset[str]) -> bool:
        """Whether one of these events ends what is remembered."""
        return ANY_EVENT in self.invalidated_by or not self.invalidated_by.isdisjoint(events)

    def life_of(self, value: T) -> float:
        """Seconds for which it is remembered, 0 for not at all. A little by chance, or what was read together would end
        together."""
        ttl = self.ttl if value is not None else self.none_ttl or 0.0
        return ttl * random.uniform(0.9, 1.0)

    def generation_key(self, tenant_id: UUID) -> str:
        return tenant_key(tenant_id, "cache", self.name, "generation")

    def value_key(self, tenant_id: UUID, arguments: Any) -> str:
        """A key of its own for each list of arguments, in which nothing of them can be read."""
        told = blake2b(msgspec.msgpack.encode(arguments), digest_size=16).hexdigest()
        return tenant_key(tenant_id, "cache", self.name, self._form, told)

    def encode(self, value: T) -> bytes:
        return msgspec.msgpack.encode(value)

    def decode(self, payload: bytes) -> T:
        """Raises `msgspec.MsgspecError` where that is no such value."""
        found: T = self._decode(payload)
        return found

    def count(self, outcome: str) -> None:
        if (inc := self._counts.get(outcome)) is None:
            inc = self._counts[outcome] = _reads.labels(self.name, outcome).inc
        inc()


_declared: dict[str, CachedRead[Any, Any]] = {}


def cached_reads() -> tuple[CachedRead[Any, Any], ...]:
    """All that were declared in this process."""
    return tuple(_declared.values())


def cached(
    of: Any,
    *,
    ttl: float,
    invalidated_by: Iterable[str] = (),
    name: str | None = None,
    most: int = 65_536,
    wait: float = 0.2,
    none_ttl: float | None = None,
) -> Callable[[Callable[Concatenate[AsyncSession, P], Awaitable[T]]], CachedRead[P, T]]:
    """Declare a read whose value is remembered for each organization and list of arguments.

    Args:
        of: the type that it returns, for msgspec.
        ttl: seconds for which a value is good at most; up to an hour. It bounds what no event tells of.
        invalidated_by: names of events, or `ANY_EVENT`: once one is committed, what was read before is not used.
        name: for keys and metrics; by default the function's, with its module.
        most: bytes of the largest value that is remembered.
        wait: seconds for which to wait for another process that reads it just now, before reading it oneself.
        none_ttl: seconds for which None is remembered; without it, what is not there is looked for each time.

    What the arguments do not say must not matter to the result: a read that depends on who asks takes their id. It
    must read what is committed, and its arguments must be what msgspec encodes.

    Raises:
        ValueError: `ttl` is out of bounds, or the name is another read's.
    """
    if not 0 < ttl <= _LONGEST or not 0 <= (none_ttl or 0) <= _LONGEST:
        raise ValueError(f"a value is remembered for up to {_LONGEST:g} seconds, not {ttl:g}")

    def declare(read: Callable[Concatenate[AsyncSession, P], Awaitable[T]]) -> CachedRead[P, T]:
        known_as = name or f"{read.__module__}.{read.__qualname__}".removeprefix("tenantry.")
        made = CachedRead(
            read,
            of=of,
            name=known_as,
            ttl=ttl,
            invalidated_by=invalidated_by,
            most=most,
            wait=wait,
            none_ttl=none_ttl,
        )
        if _declared.setdefault(known_as, made) is not made:
            raise ValueError(f"two cached reads are named {known_as!r}")
        return made

    return declare


class TenantCache:
    """Values of organizations in Redis. Belongs to one event loop.

    Args:
        line: to Redis; one of its own, since values are larger than the limits' questions.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self._flights: dict[tuple[UUID, str, str], asyncio.Future[bytes | None]] = {}
        """By organization, read and key: what is being found out in this process."""
        self._owed: set[tuple[UUID, str]] = set()
        """Generations that have ended, of which Redis could not be told yet."""

    async def read(self, request: TenantRequest, what: CachedRead[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The value for the request's organization, read in the request's transaction where it has to be.

        A request that writes reads for itself: what it has not committed is nobody else's business.

        Raises:
            NotAuthenticatedException: the request is no tenant's.
            Exception: whatever reading raises.
        """

        async def load() -> T:
            return await what(await request.session(), *args, **kwargs)

        if request.tenant is None:
            raise NotAuthenticatedException
        if not request.read_only:
            what.count("bypassed")
            return await load()
        return await self.recall(request.tenant, what, load, (args, kwargs))

    async def recall(
        self,
        tenant: TenantContext,
        what: CachedRead[Any, T],
        load: Callable[[], Awaitable[T]],
        arguments: Any = ((), {}),
    ) -> T:
        """The same for who has a transaction of their own; `load` reads in that tenant's scope, at READ COMMITTED."""
        self._settle_debts()
        if not self._line.is_open or (tenant.id, what.name) in self._owed:
            what.count("bypassed")
            return await load()
        place = (tenant.id, what.name, what.value_key(tenant.id, arguments))
        flight = self._flights.get(place)
        if flight is not None:
            # Not the future itself: whoever gives up waiting would cancel it for all.
            await asyncio.wait([flight])
            if (payload := flight.result()) is not None:
                what.count("joined")
                # A copy each: what one changes in theirs is not the others'.
                return what.decode(payload)
            what.count("bypassed")
            return await load()
        flight = self._flights[place] = asyncio.get_running_loop().create_future()
        try:
            payload, value = await self._find(place, what, load)
            flight.set_result(payload)
            return value
        finally:
            if not flight.done():
                flight.set_result(None)
            if self._flights.get(place) is flight:
                del self._flights[place]

    async def _find(
        self, place: tuple[UUID, str, str], what: CachedRead[Any, T], load: Callable[[], Awaitable[T]]
    ) -> tuple[bytes | None, T]:
        tenant_id, _, key = place
        lock = f"{key}:lock"
        try:
            generation, head, left = await self._look(what.generation_key(tenant_id), key)
            if head is not None:
                found = _Found.of(what, head)
                if found is not None and not found.is_due(left):
                    what.count("hit")
                    return found.payload, found.value
                if found is not None and not await self._lock(lock):
                    # Somebody reads it anew, and it is good until they have.
                    what.count("hit")
                    return found.payload, found.value
                what.count("early" if found is not None else "unreadable")
            elif not await self._lock(lock):
                found = await self._await_other(tenant_id, what, key)
                if found is not None:
                    what.count("hit")
                    return found.payload, found.value
                what.count("miss")
            else:
                what.count("miss")
        except (RedisAway, ResponseError) as error:
            if isinstance(error, ResponseError):
                _log.error("a cached value could not be looked for", cache=what.name, error=repr(error))
            what.count("bypassed")
            return None, await load()
        began = time.perf_counter()
        try:
            value = await load()
        except BaseException:
            self._line.tell("DEL", lock)
            raise
        payload = what.encode(value)
        life = what.life_of(value)
        if life and len(payload) <= what.most:
            stored = _HEAD.pack(generation, time.perf_counter() - began) + payload
            self._line.tell("SET", key, stored, "PX", max(1, round(life * 1000)))
        self._line.tell("DEL", lock)
        return payload, value

    async def _look(self, generation_key: str, key: str) -> tuple[bytes, bytes | None, int]:
        """The generation, what is stored of it, and for how many milliseconds that is still good."""
        asked = [self._line.send("MGET", generation_key, key), self._line.send("PTTL", key)]
        (generation, stored), left = [_checked(await answer) for answer in asked]
        if generation is None:
            asked = [
                self._line.send("SET", generation_key, uuid4().bytes, "NX", "EX", _GENERATION_KEPT),
                self._line.send("GET", generation_key),
            ]
            _, generation = [_checked(await answer) for answer in asked]
            if generation is None:
                raise RedisAway(was_sent=True)
        is_present = stored is not None and stored[: len(generation)] == generation
        return generation, stored if is_present else None, left

    async def _lock(self, lock: str) -> bool:
        return await self._line.ask("SET", lock, "1", "NX", "PX", _LOCKED_FOR) is not None

    async def _await_other(self, tenant_id: UUID, what: CachedRead[Any, T], key: str) -> _Found[T] | None:
        """What another process is about to store, if it does so in time."""
        until = time.monotonic() + what.wait
        while time.monotonic() < until:
            await asyncio.sleep(_LOOKED_EVERY)
            _, stored, _ = await self._look(what.generation_key(tenant_id), key)
            if stored is not None:
                return _Found.of(what, stored)
        return None

    # What has ended.

    def follow(self, tenant_id: UUID, events: frozenset[str]) -> None:
        """Begin a new generation of whatever these events end. To be called once they are committed; waits for nothing,
        and whoever asks this process afterwards does so after it."""
        for what in cached_reads():
            if what.ended_by(events):
                self._end(tenant_id, what.name, what.generation_key(tenant_id))

    def _end(self, tenant_id: UUID, name: str, generation_key: str) -> None:
        for place in [place for place in self._flights if place[:2] == (tenant_id, name)]:
            # Whoever asks from now on is not told what was read before.
            del self._flights[place]
        told = self._line.send("SET", generation_key, uuid4().bytes, "EX", _GENERATION_KEPT)
        # In the order in which they were sent, and so before the answer to whoever asks next in this process.
        told.add_done_callback(lambda answer: self._owe(tenant_id, name, answer.result()))

    def _owe(self, tenant_id: UUID, name: str, answer: Any) -> None:
        if not isinstance(answer, Exception):
            return
        if len(self._owed) < _OWED:
            self._owed.add((tenant_id, name))
        else:
            # Values end by their time at the latest.
            _log.warning("more cached values have ended than can be remembered", most=_OWED)

    def _settle_debts(self) -> None:
        if self._owed and self._line.is_open:
            names = {what.name: what for what in cached_reads()}
            for place in list(self._owed)[:_TOGETHER]:
                self._owed.discard(place)
                tenant_id, name = place
                self._end(tenant_id, name, names[name].generation_key(tenant_id))


class _Found(Generic[T]):
    """A value that was stored."""

    __slots__ = ("_cost", "payload", "value")

    def __init__(self, payload: bytes, value: T, cost: float) -> None:
        self.payload = payload
        self.value = value
        self._cost = cost

    @classmethod
    def of(cls, what: CachedRead[Any, T], stored: bytes) -> _Found[T] | None:
        """None where it cannot be read."""
        try:
            _, cost = _HEAD.unpack_from(stored)
            payload = stored[_HEAD.size :]
            return cls(payload, what.decode(payload), cost)
        except (struct.error, msgspec.MsgspecError) as error:
            _log.warning("a cached value cannot be read", cache=what.name, error=type(error).__name__)
            return None

    def is_due(self, left: int) -> bool:
        """Whether to read it anew before it ends: the likelier, the nearer that is and the longer reading takes
        (Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015)."""
        return -self._cost * math.log(1.0 - random.random()) * 1000 >= left


def _checked(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer
