"""SAQ's worker, which ends as soon as its jobs have."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import structlog
from saq import Worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tenantry.jobs.fair import FairQueue

__all__ = ("PromptWorker",)

_log = structlog.get_logger(__name__)


class PromptWorker(Worker[Any]):
    """A `saq.Worker` over the queues of a `FairQueue`, whose idle slots and timers notice at once that it is to end.

    SAQ's own sleep on: whoever stops a worker that has nothing to do, each deployment and each Ctrl-C of `tenantry up`,
    would wait for the longest of its timers, which is five seconds, or for the grace time.
    """

    def __init__(self, queue: FairQueue, functions: Sequence[Any], **options: Any) -> None:
        """`options` are `saq.Worker`'s."""
        super().__init__(queue, functions, **options)
        self._fair = queue

    async def stop(self) -> None:
        """As SAQ's; which waits for the jobs at work, the grace time at most."""
        self.event.set()
        self._fair.dismiss()
        await super().stop()

    async def upkeep(self) -> list[asyncio.Task[None]]:
        """SAQ's timers, with the arguments that SAQ gives."""
        timers = self.timers
        return [
            asyncio.create_task(self._repeat(work, seconds, argument), name=f"job-{work.__name__}")
            for work, seconds, argument in (
                (self.abort, timers["abort"], timers["abort"]),
                (self.schedule, timers["schedule"], timers["schedule"]),
                (self._fair.sweep, timers["sweep"], timers["sweep"]),
                # Known for a second longer than until the next time.
                (self.worker_info, timers["worker_info"], timers["worker_info"] + 1),
            )
        ]

    async def _repeat(self, work: Callable[[int], Awaitable[object]], seconds: int, argument: int) -> None:
        while not self.event.is_set():
            try:
                await work(argument)
            except Exception:
                # Redis is away, say: it is tried again.
                _log.exception("upkeep failed", upkeep=work.__name__)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.event.wait()
