"""The Redis client."""

from __future__ import annotations

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

__all__ = ("create_redis",)


def create_redis(url: str, *, timeout: float = 0.25, max_connections: int = 50) -> Redis:
    """A client that gives up quickly: whatever Redis is asked for, the service must do without it when it is away.

    `timeout` is in seconds, for connecting and for each answer.
    """
    return Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        max_connections=max_connections,
        retry=Retry(NoBackoff(), 1),
        client_name="tenantry",
    )
