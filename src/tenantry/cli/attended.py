"""A program of `tenantry up` without which requests are served all the same: it is started again when it ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tenantry.cli.progress import Progress
    from tenantry.dev.supervisor import Program

__all__ = ("Attended",)

_LASTED = 60.0
"""Seconds after which an end is a new misfortune, and not the last one once more."""
_LONGEST = 30.0


class Attended:
    """One such program."""

    def __init__(self, program: Program, progress: Progress) -> None:
        self.program = program
        self._progress = progress
        self._restarts = 0
        self._restart_at = 0.0
        self._since = 0.0

    def start(self) -> None:
        """Raises `ServerError` when it cannot be started."""
        self.program.start()
        self._restart_at, self._since = 0.0, time.monotonic()

    def watch(self) -> None:
        """Call it over and over: start the program again when it has ended, later each time."""
        if (code := self.program.ended()) is None:
            return
        now = time.monotonic()
        if not self._restart_at:
            if now - self._since > _LASTED:
                self._restarts = 0
            delay = min(_LONGEST, 0.5 * 2**self._restarts)
            self._restarts += 1
            self._restart_at = now + delay
            self._progress.say(
                f"The {self.program.label} has ended with exit code {code} (see {self.program.log}); it starts again in"
                f" {delay:g} s",
                "yellow",
            )
        elif now >= self._restart_at:
            self.program.stop()
            self.start()
