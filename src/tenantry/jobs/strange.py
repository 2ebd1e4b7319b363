"""Jobs of another release, which a worker leaves to those that know them.

While a release is deployed, processes of both enqueue and work. None of a job's attempts may be spent by a worker that
has no function of that name, or whose function has fewer parameters: with two attempts and two such workers it would be
dead before the first worker of its own release is there. The same when a release is taken back for a while.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from saq.job import Job

__all__ = ("Strange",)

_FOR = 3600.0
"""Seconds for which a job is left to others; then it is run, and fails as it must."""
_PAUSE = (0.3, 15.0)
"""Seconds between two looks at it: a quarter of the time for which it has been left, within these."""

_log = structlog.get_logger(__name__)


class Strange:
    """Says what a worker does not know."""

    def __init__(self) -> None:
        self.knows: Callable[[Job], bool] = lambda _: True
        """Whether a job, with its arguments, is of this worker's release."""
        self._said: set[str] = set()

    def due(self, job: Job) -> float | None:
        """When somebody should look at a job again (seconds since 1970), or None: it is to be run here.

        Writes into its `meta` since when it has been left to others.
        """
        if self.knows(job):
            return None
        now = time.time()
        left_for = now - job.meta.setdefault("strange_since", now)
        if left_for > _FOR:
            return None
        if job.function not in self._said:
            self._said.add(job.function)
            _log.warning("jobs that are not of this release are left to other workers", function=job.function)
        shortest, longest = _PAUSE
        return float(now + min(longest, max(shortest, left_for / 4)))
