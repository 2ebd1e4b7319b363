"""Knowing that the server was told to end, for answers that would otherwise go on.

A server lets the requests under way end before it tells the application that it is over (ASGI's `lifespan.shutdown`).
A stream of events is a request under way that nobody ends: tried with granian, one of them kept a worker for the whole
time-out, and was then killed with it. So the signals are listened to here as well, in front of the server's handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ("Shutdown",)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Shutdown:
    """Whether the process is about to end; true for good once it is."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()

    def begin(self) -> None:
        """Say that it is."""
        self._begun.set()

    async def within(self, seconds: float) -> bool:
        """Wait so long, or until the process is about to end: then it is True, at once."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._begun.wait()
        return self._begun.is_set()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Listen to SIGTERM and SIGINT until the block ends, which counts as the end of the process too.

        Where nobody has a handler of their own, as in tests, the signals are left alone: what they do there is not
        ours to say. So they are outside of the main thread, where Python has no say in them.
        """
        loop = asyncio.get_running_loop()
        before = {}
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.getsignal(number) for number in _SIGNALS}
        chained = []
        for number, handler in before.items():
            if not callable(handler) or handler is signal.default_int_handler:
                continue

            def both(received: int, frame: FrameType | None, handler: object = handler) -> None:
                loop.call_soon_threadsafe(self.begin)
                handler(received, frame)  # type: ignore[operator]

            signal.signal(number, both)
            # What asyncio and uvloop do for theirs, and `signal` takes back: system calls go on.
            signal.siginterrupt(number, False)
            chained.append((number, both, handler))
        try:
            yield
        finally:
            self.begin()
            for number, ours, theirs in chained:
                # Unless the server has put its own back in the meantime.
                if signal.getsignal(number) is ours:
                    signal.signal(number, theirs)
                    signal.siginterrupt(number, False)
