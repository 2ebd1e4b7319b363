"""Knowing that the server was told to end: for answers that would otherwise go on, and for requests still to come.

A server lets the requests under way end before it tells the application that it is over (ASGI's `lifespan.shutdown`).
A stream of events is a request under way that nobody ends: tried with granian, one of them kept a worker for the whole
time-out, and was then killed with it. So the signals are listened to here as well, in front of the server's handler.

It also closes, at once and without a word, the connections on which it is just waiting for the next request: tried with
granian and sixteen clients that ask one thing after the other, each SIGTERM lost six requests that had been sent. Nor
does an orchestrator wait for its balancers: Kubernetes takes a pod out of its Services at the time at which it sends
the SIGTERM, and for a second or two requests still come. So a process drains first: it goes on serving, and says
`Connection: close` with each answer (RFC 9112, section 9.6), after which the client sends nothing more on that one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    Handler = Callable[[int, FrameType | None], object]

__all__ = ("Shutdown",)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Shutdown:
    """Whether the process is about to end; true for good once it is.

    Args:
        drain: seconds between SIGTERM and the beginning of the end; 0 ends at once, and so does SIGINT, by which people
            end what they have in front of them.
    """

    def __init__(self, drain: float = 0.0) -> None:
        self._drain = drain
        self._begun = asyncio.Event()
        self.is_draining = False
        """Whether whoever sends requests should send the next one elsewhere; from the signal on."""

    def begin(self) -> None:
        """Say that it is."""
        self.is_draining = True
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
        theirs: dict[int, Handler] = {
            number: handler
            for number, handler in before.items()
            if callable(handler) and handler is not signal.default_int_handler
        }
        ours: dict[int, Handler] = {}
        for number, handler in theirs.items():
            if number == signal.SIGTERM and self._drain:
                # Instead of the server's, which may be the loop's own (granian's is) and would hear it as well.
                loop.add_signal_handler(number, self._hold_off, loop, theirs)
                ours[number] = signal.getsignal(number)  # type: ignore[assignment]
                continue

            def both(received: int, frame: FrameType | None, handler: Handler = handler) -> None:
                loop.call_soon_threadsafe(self.begin)
                handler(received, frame)

            signal.signal(number, both)
            # What asyncio and uvloop do for theirs, and `signal` takes back: system calls go on.
            signal.siginterrupt(number, False)
            ours[number] = both
        try:
            yield
        finally:
            self.begin()
            for number, handler in ours.items():
                # Unless the server has put its own back in the meantime.
                if signal.getsignal(number) is handler:
                    loop.remove_signal_handler(number)
                    signal.signal(number, theirs[number])
                    signal.siginterrupt(number, False)

    def _hold_off(self, loop: asyncio.AbstractEventLoop, theirs: dict[int, Handler]) -> None:
        # The server's main process sends it to its workers, be it that an orchestrator has sent it to all of them.
        if self.is_draining:
            return
        self.is_draining = True
        loop.call_later(self._drain, self._pass_on, theirs)

    def _pass_on(self, theirs: dict[int, Handler]) -> None:
        self.begin()
        if signal.SIGINT in theirs:
            # A handler that was the loop's own cannot be called, or put back: the loop has forgotten it. Servers end in
            # the same way by either of the two.
            os.kill(os.getpid(), signal.SIGINT)
        else:
            theirs[signal.SIGTERM](signal.SIGTERM, None)
