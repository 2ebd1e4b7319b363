"""Waiting for Redis to come back, and for what talks to it to end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import structlog
from redis.exceptions import ClusterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

__all__ = ("AWAY", "answer", "end", "persist")

AWAY = (
    *(RedisConnectionError, RedisTimeoutError, OSError),
    *(ReadOnlyError, ClusterDownError, TryAgainError, OutOfMemoryError),
)
"""What a Redis looks like that is away, still loading, no longer or not yet the leader, or full."""

_T = TypeVar("_T")
_SHORTEST, _LONGEST = 0.05, 2.0
"""Seconds."""

_LOST = 1.0
"""Seconds after which a task that was cancelled, and goes on, is cancelled again."""

_log = structlog.get_logger(__name__)


async def answer(asked: Awaitable[_T] | _T) -> _T:
    """What Redis says. redis-py declares its commands for both of its clients; of ours, each is to be awaited."""
    return await cast("Awaitable[_T]", asked)


async def persist(ask: Callable[[], Awaitable[_T]]) -> _T:
    """Ask until there is an answer: for what must not be dropped, and may be asked twice, such as ending a claim.

    SAQ would drop it: the job would then count as at work for as long as its worker lives.

    Raises:
        redis.exceptions.RedisError: Redis is there, and refuses.
    """
    pause = _SHORTEST
    while True:
        try:
            return await ask()
        except AWAY as error:
            if pause == _SHORTEST:
                _log.warning("waiting for Redis", error=repr(error))
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST)


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks until they have ended; what they raise is dropped.

    One cancellation may be lost: redis-py sends a command by way of `asyncio.wait_for`, which in Python 3.11 returns as
    if nothing were when the cancellation comes as the command is on its way (python/cpython#86296, mended in 3.12). A
    worker would then wait for ever for what it has ended, once in some thirty times.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_LOST)
    await asyncio.gather(*tasks, return_exceptions=True)
