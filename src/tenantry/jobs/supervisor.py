"""A process beside the worker that ends it when a job has taken hold of it.

A worker runs its jobs in one event loop. One that computes for ever, or blocks, stops all of them and the worker's sign
of life with them; the jobs would be handed on, and the culprit would stop the next worker, and the next. One that takes
all memory does the same by way of the kernel. So the supervisor ends such a worker and has what it held run again in
quarantine: one job at a time, in a process of its own. Whichever ends that one too is dead; the others keep their
attempts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from uuid_utils.compat import uuid7

from tenantry.jobs.patience import persist

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tenantry.jobs.ring import Ring

__all__ = ("BEAT_VARIABLE", "Limits", "Supervisor", "beat")

BEAT_VARIABLE = "_TENANTRY_BEAT"
"""In the worker's environment, and no setting, hence the underscore: the descriptor of a pipe to write to."""

_BEAT = 1.0
_LOOK = 0.25
_PAGE = os.sysconf("SC_PAGE_SIZE")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """When a worker is ended."""

    stall: float = 30.0
    """Seconds without a turn of its event loop, once there was one."""
    start: float = 120.0
    """Seconds until the first. Imports are not a job's doing: on a machine with too much to do they take their time,
    and a worker that was ended for that would be started only to be ended again."""
    memory: int = 0
    """Bytes of resident memory; 0: whatever the machine gives."""
    grace: float = 30.0
    """Seconds after SIGTERM."""


async def beat() -> None:
    """Tell the supervisor, if there is one, every second that the event loop turns; until it is cancelled."""
    if (number := os.environ.get(BEAT_VARIABLE)) is None:
        return
    descriptor = int(number)
    os.set_blocking(descriptor, False)
    while True:
        try:
            os.write(descriptor, b".")
        except BlockingIOError:
            # A supervisor that does not read is its own problem.
            pass
        except BrokenPipeError:
            # It was killed: without it nobody would end this worker. The jobs are given back.
            os.kill(os.getpid(), signal.SIGTERM)
            return
        await asyncio.sleep(_BEAT)


class Supervisor:
    """Runs one worker, and starts it anew when it ends; `command` makes its command line of its id and whether it is
    to work off a quarantine."""

    def __init__(self, command: Callable[[str, bool], Sequence[str]], *, ring: Ring, limits: Limits, name: str) -> None:
        """`name` is what the ids of its workers begin with."""
        self._command = command
        self._ring = ring
        self._limits = limits
        self._name = name
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Have the worker end in peace, and `run` with it."""
        self._stopping.set()

    async def run(self) -> int:
        """Until `stop` is called; the exit code: 1 where a worker had to be killed for not ending in time.

        A worker that ends by itself is started anew, more and more slowly if it does so at once.
        """
        failures = 0
        quarantines: set[asyncio.Task[None]] = set()
        code = 0
        while not self._stopping.is_set():
            begun = asyncio.get_running_loop().time()
            child = _Child(self._id(), self._command, self._limits, quarantine=False)
            reason = await child.run(self._stopping)
            code = 1 if reason == "grace" else 0
            if self._stopping.is_set():
                break
            _log.error("a worker has ended", worker=child.id, reason=reason, exit_code=child.exit_code)
            task = asyncio.create_task(self._quarantine(child.id), name="quarantine")
            quarantines.add(task)
            task.add_done_callback(quarantines.discard)
            failures = 0 if asyncio.get_running_loop().time() - begun > 60 else failures + 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(30.0, 0.5 * 2 ** (failures - 1)) if failures else 0):
                    await self._stopping.wait()
        for task in quarantines:
            task.cancel()
        await asyncio.gather(*quarantines, return_exceptions=True)
        return code

    async def _quarantine(self, worker: str) -> None:
        """Have what a worker held run again, one job at a time, until nothing of it is left."""
        while True:
            successor = f"{self._id()}-quarantine"
            if not await persist(lambda successor=successor, worker=worker: self._ring.adopt(worker, successor)):  # type: ignore[misc]
                return
            child = _Child(successor, self._command, self._limits, quarantine=True)
            reason = await child.run(self._stopping)
            if self._stopping.is_set():
                return
            if reason != "exit" or child.exit_code != 0:
                _log.error("a job has ended its worker again", worker=successor, reason=reason)
            # Its own loop has buried whichever job it found begun; what it did not come to is adopted anew.
            worker = successor

    def _id(self) -> str:
        return f"{self._name}-{uuid7().hex[-8:]}"


class _Child:
    """One worker's process, and its pulse."""

    def __init__(
        self, worker_id: str, command: Callable[[str, bool], Sequence[str]], limits: Limits, *, quarantine: bool
    ) -> None:
        self.id = worker_id
        self.exit_code: int | None = None
        self._command = list(command(worker_id, quarantine))
        self._limits = limits

    async def run(self, stopping: asyncio.Event) -> str:
        """Start it and watch it until it has ended: by itself (`exit`), or ended for `stall`, `memory` or `grace`."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, pass_fds=(writing,), env={**os.environ, BEAT_VARIABLE: str(writing)}
            )
        finally:
            os.close(writing)
        try:
            reason = await self._watch(process, reading, stopping)
        finally:
            os.close(reading)
            if process.returncode is None:
                process.kill()
            self.exit_code = await process.wait()
        return reason

    async def _watch(self, process: asyncio.subprocess.Process, reading: int, stopping: asyncio.Event) -> str:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        beaten: float | None = None
        told: float | None = None
        ended = asyncio.create_task(process.wait())
        try:
            while not ended.done():
                now = loop.time()
                with contextlib.suppress(BlockingIOError):
                    if os.read(reading, 4096):
                        beaten = now
                if told is None and stopping.is_set():
                    told = now
                    process.terminate()
                if told is not None and now - told > self._limits.grace:
                    return "grace"
                if now - begun > self._limits.start if beaten is None else now - beaten > self._limits.stall:
                    return "stall"
                if self._limits.memory and _resident(process.pid) > self._limits.memory:
                    return "memory"
                await asyncio.wait({ended}, timeout=_LOOK)
        finally:
            ended.cancel()
        return "exit"


def _resident(pid: int) -> int:
    """Bytes of memory that a process holds; 0 where nobody can say."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0
