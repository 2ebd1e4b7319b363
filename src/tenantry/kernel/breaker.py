"""Doing without a service that is away, at no request's expense.

While it is closed, the service is asked. After failures it opens: nobody asks any more, and requests go on at once as
if the service were not there. Whether it is back is found out in the background, never by a request that would have to
wait for the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from enum import IntEnum
from typing import TYPE_CHECKING

import structlog
from prometheus_client import Counter, Gauge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ("Breaker", "State")

_state = Gauge(
    "tenantry_breaker_state",
    "Whether a service is asked: 0 closed (it is), 1 half-open (a probe is on its way), 2 open (it is done without).",
    ["breaker"],
    multiprocess_mode="livemax",
)
_openings = Counter("tenantry_breaker_openings", "Times that a service was given up on for a while.", ["breaker"])

_log = structlog.get_logger(__name__)


class State(IntEnum):
    """The metric's values."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """Whether one service is asked. Belongs to one event loop.

    Args:
        name: of the service, for logs and metrics.
        probe: asks the service for something small, of the kind that is needed; raises where it is not there.
        failures: so many in a row open it. A time-out, which has cost somebody its whole length, opens it by itself.
        pause: seconds until the first probe; each that fails doubles it, up to `longest`.
        patience: seconds that a probe may take.
    """

    def __init__(
        self,
        name: str,
        probe: Callable[[], Awaitable[object]],
        *,
        failures: int = 2,
        pause: float = 0.1,
        longest: float = 1.0,
        patience: float = 1.0,
    ) -> None:
        self.name = name
        self.is_closed = True
        """Whether the service is asked. An attribute, and no property: it is looked at in every request."""
        self._probe = probe
        self._failures = failures
        self._pause = pause
        self._longest = longest
        self._patience = patience
        self._failed = 0
        self._opened_at = 0.0
        self._probing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._is_stopped = False
        self._gauge = _state.labels(name)
        self._count_opening = _openings.labels(name).inc
        self._enter(State.CLOSED)

    def _enter(self, state: State) -> None:
        self.state = state
        self.is_closed = state is State.CLOSED
        self._gauge.set(state)

    def succeeded(self) -> None:
        """The service has answered. While it is open that counts for nothing: it was asked before."""
        self._failed = 0

    def failed(self, error: BaseException) -> None:
        """The service has not answered, or that it cannot."""
        if not self.is_closed:
            return
        self._failed += 1
        if self._failed >= self._failures or isinstance(error, TimeoutError):
            self._open(error)

    def _open(self, error: BaseException) -> None:
        self._enter(State.OPEN)
        self._count_opening()
        self._opened_at = time.monotonic()
        # Once for each change: a line for every request would be the next thing to fall over.
        _log.warning("done without for now", service=self.name, error=repr(error))
        if not self._is_stopped:
            self._probing = asyncio.create_task(self._return(), name=f"breaker-{self.name}")

    async def _return(self) -> None:
        pause = self._pause
        while not await self._is_told_to_stop(pause):
            self._enter(State.HALF_OPEN)
            try:
                async with asyncio.timeout(self._patience):
                    await self._probe()
            except Exception:  # noqa: BLE001, RUF100 - whatever it is, the service is not back
                self._enter(State.OPEN)
                pause = min(pause * 2, self._longest)
            else:
                self._failed = 0
                self._enter(State.CLOSED)
                _log.warning("back again", service=self.name, seconds=round(time.monotonic() - self._opened_at, 1))
                return

    async def _is_told_to_stop(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        return self._closing.is_set()

    async def stop(self) -> None:
        """End the probing, which takes as long as a probe may; the breaker stays as it is."""
        self._is_stopped = True
        self._closing.set()
        if self._probing is not None:
            # Not cancelled: redis-py may swallow that on Python 3.11, and every probe ends by itself.
            await self._probing
