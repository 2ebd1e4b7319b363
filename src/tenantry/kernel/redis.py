"""The Redis client."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from prometheus_client import Gauge, Histogram
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tenantry.kernel import tracing

__all__ = ("MeteredRedis", "create_redis", "sample_redis")

_WAITING = frozenset({"BLPOP", "BRPOP", "BLMOVE", "XREAD", "XREADGROUP"})
"""Commands that wait for somebody else: how long they take says nothing of Redis."""

_seconds = Histogram(
    "tenantry_redis_seconds",
    "Round trips to Redis, by whether they were answered (ok) or not (error); without those that wait on purpose.",
    ("outcome",),
    buckets=(0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0),
)
_connections = Gauge(
    "tenantry_redis_connections",
    "Connections to Redis, by whether somebody has them (in_use) or not (idle).",
    ("state",),
    multiprocess_mode="livesum",
)
# Looking children up costs more than observing does.
_ok, _error = _seconds.labels("ok").observe, _seconds.labels("error").observe


class MeteredRedis(Redis):
    """A client whose round trips are measured, and are spans where something is traced.

    What goes through a pipeline is not seen here; nothing on the way of a request does.
    """

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """As redis-py's."""
        if args[0] in _WAITING:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        if tracing.ACTIVE is not None:
            with tracing.ACTIVE.redis(str(args[0])):
                return await self._measured(args, options)
        return await self._measured(args, options)

    async def _measured(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        begun = perf_counter()
        try:
            answer = await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except BaseException:
            _error(perf_counter() - begun)
            raise
        _ok(perf_counter() - begun)
        return answer


def create_redis(url: str, *, timeout: float = 0.25, max_connections: int = 50) -> Redis:
    """A client that gives up quickly: whatever Redis is asked for, the service must do without it when it is away.

    `timeout` is in seconds, for connecting and for each answer.
    """
    return MeteredRedis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        max_connections=max_connections,
        retry=Retry(NoBackoff(), 1),
        client_name="tenantry",
    )


def sample_redis(*clients: Redis) -> None:
    """Set the gauges of the process' connections."""
    in_use = idle = 0
    for client in clients:
        pool: Any = client.connection_pool
        in_use += len(pool._in_use_connections)
        idle += len(pool._available_connections)
    _connections.labels("in_use").set(in_use)
    _connections.labels("idle").set(idle)
