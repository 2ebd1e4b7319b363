"""Who in this process listens for notifications, and the one connection to Redis on which they are woken.

What is said there is a hint, and nothing that must not be lost: that a user has been given something. Whoever listens
reads it from the database, and looks there now and then without a hint.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import structlog
from redis.exceptions import RedisError

from tenantry.jobs.patience import AWAY, end
from tenantry.kernel.errors import TooManyRequestsException, UnavailableException
from tenantry.tenancy.redis import tenant_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator

    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub

    from tenantry.kernel.http.shutdown import Shutdown
    from tenantry.tenancy.registry import TenantRegistry

__all__ = ("Listeners", "Seat", "wake")

_AREA = "notifications"
_NAMED = 1000
"""Users that a hint names at most; beyond it, all who listen look."""
_SWEEP = 0.5
"""Seconds between two looks at the registry, which is in memory."""
_TURN = 0.2
"""Seconds that the connection is listened to before channels are added and left."""
_BACK = 1.0
"""Seconds after which a connection that broke is made anew."""
_FULL = 10
"""Seconds after which whoever found no seat may come back."""

_log = structlog.get_logger(__name__)
_users = msgspec.json.Decoder(list[UUID])


def _channel(tenant_id: UUID) -> str:
    return tenant_key(tenant_id, _AREA)


async def wake(redis: Redis, *, tenant_id: UUID, user_ids: Collection[UUID]) -> None:
    """Have the streams of these users look, in whatever process they are.

    Raises:
        redis.exceptions.RedisError: Redis is away.
    """
    # Nobody named: everybody is meant.
    named = list(user_ids) if len(user_ids) <= _NAMED else []
    await redis.publish(_channel(tenant_id), msgspec.json.encode(named))


class Seat:
    """A place among those who listen, for one stream."""

    __slots__ = ("_woken", "is_over")

    def __init__(self) -> None:
        self._woken = asyncio.Event()
        self.is_over = False
        """The stream is to end."""

    def wake(self) -> None:
        self._woken.set()

    def end(self) -> None:
        self.is_over = True
        self._woken.set()

    async def woken(self, seconds: float) -> None:
        """Wait until there may be something, so long at most. What comes while nobody waits is not lost."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()


class Listeners:
    """All who listen in this process, by tenant and user."""

    def __init__(
        self,
        redis: Redis,
        registry: TenantRegistry,
        shutdown: Shutdown,
        *,
        most: int,
        most_per_tenant: int,
        most_per_user: int,
    ) -> None:
        """At most so many seats in this process, and of one user."""
        self._redis = redis
        self._registry = registry
        self._shutdown = shutdown
        self._most = most
        self._most_per_tenant = most_per_tenant
        self._most_per_user = most_per_user
        self._rooms: dict[UUID, dict[UUID, set[Seat]]] = {}
        self._count = 0
        self._wanted = asyncio.Event()
        self._heard: set[UUID] = set()

    def __len__(self) -> int:
        return self._count

    @contextmanager
    def seat(self, tenant_id: UUID, user_id: UUID) -> Iterator[Seat]:
        """A place until the block ends.

        Raises:
            TooManyRequestsException: the user, the organization, or all together, have as many as there may be.
        """
        if len(self._rooms.get(tenant_id, {}).get(user_id, ())) >= self._most_per_user:
            raise TooManyRequestsException(
                f"You follow your notifications {self._most_per_user} times already.", retry_after=_FULL
            )
        if sum(map(len, self._rooms.get(tenant_id, {}).values())) >= self._most_per_tenant:
            raise TooManyRequestsException("Too many of your organization follow theirs already.", retry_after=_FULL)
        if self._count >= self._most:
            raise TooManyRequestsException("Too many follow their notifications here already.", retry_after=_FULL)
        seat = Seat()
        self._rooms.setdefault(tenant_id, {}).setdefault(user_id, set()).add(seat)
        self._count += 1
        self._wanted.set()
        try:
            yield seat
        finally:
            self._count -= 1
            room = self._rooms[tenant_id]
            room[user_id].discard(seat)
            if not room[user_id]:
                del room[user_id]
            if not room:
                del self._rooms[tenant_id]
            if not self._rooms:
                self._wanted.clear()

    def hears(self, tenant_id: UUID) -> bool:
        """Whether hints of this tenant reach this process at the moment."""
        return tenant_id in self._heard

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Listen, until the block ends or the process is told to end: then every seat is over."""
        tasks = [
            asyncio.create_task(self._sweep(), name="notification-sweep"),
            asyncio.create_task(self._hear(), name="notification-hints"),
        ]
        try:
            yield
        finally:
            # Not by one cancellation each: on its way through redis-py it may be lost.
            await end(*tasks)
            self._end(list(self._rooms))

    async def _sweep(self) -> None:
        """End the streams of tenants who may not be served any more, and all when the process ends."""
        while not await self._shutdown.within(_SWEEP):
            self._end([tenant_id for tenant_id in self._rooms if not self.may_serve(tenant_id)])
        self._end(list(self._rooms))

    def may_serve(self, tenant_id: UUID) -> bool:
        """Whether this tenant is served at the moment; False too where that cannot be known."""
        try:
            tenant = self._registry.by_id(tenant_id)
        except UnavailableException:
            return False
        return tenant is not None and tenant.is_active and tenant.served

    def _end(self, tenants: Collection[UUID]) -> None:
        for tenant_id in tenants:
            for seats in self._rooms[tenant_id].values():
                for seat in seats:
                    seat.end()

    async def _hear(self) -> None:
        warned = False
        while True:
            await self._wanted.wait()
            try:
                async with self._redis.pubsub() as connection:
                    await self._attend(connection)
                warned = False
            except (*AWAY, RedisError) as error:
                if not warned:
                    _log.warning("notifications are looked for, and not waited for", error=repr(error))
                warned = True
            except Exception:
                # Whatever it was: a process that hears nothing any more, and says nothing, would be worse.
                _log.exception("notifications are looked for, and not waited for")
            finally:
                self._heard.clear()
            if self._rooms:
                await asyncio.sleep(_BACK)

    async def _attend(self, connection: PubSub) -> None:
        """Hear the hints of all tenants of whom somebody listens, until nobody does."""
        asked: set[UUID] = set()
        while self._rooms:
            wanted = set(self._rooms)
            if fresh := wanted - asked:
                await connection.subscribe(*map(_channel, fresh))
            if left := asked - wanted:
                self._heard -= left
                await connection.unsubscribe(*map(_channel, left))
            asked = wanted
            message = await connection.get_message(timeout=_TURN)
            if message is not None:
                self._take(message, {_channel(tenant_id).encode(): tenant_id for tenant_id in asked})

    def _take(self, message: dict[str, Any], tenants: dict[bytes, UUID]) -> None:
        tenant_id = tenants.get(message["channel"])
        if tenant_id is None:
            return
        room = self._rooms.get(tenant_id, {})
        named: Collection[UUID] = ()
        if message["type"] == "subscribe":
            # What was said before was not heard: all of them look once.
            self._heard.add(tenant_id)
        elif message["type"] == "message":
            named = _named(message["data"])
        else:
            return
        for user_id in named or room:
            for seat in room.get(user_id, ()):
                seat.wake()


def _named(data: bytes) -> Collection[UUID]:
    """Whom a hint names; nobody, which is everybody, where it cannot be read: a later release may say it otherwise."""
    try:
        return _users.decode(data)
    except msgspec.MsgspecError:
        return ()
