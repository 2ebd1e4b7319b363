"""The event loop's time: a tenant that takes much of it is worked for one request at a time while others are there.

An event loop works off its steps in the order in which they came up, whoever they are for. Eight lists of one tenant
that are encoded one after another are eight times the wait for whoever asks for a single thing; one list is one. How
many requests are at work therefore does not say enough, and how long they have been so says nothing: one that waits for
PostgreSQL costs the loop nothing. What counts is the CPU time of their steps.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("ProcessorTime",)

_NEAR = 1.0
"""Seconds for which a tenant's request says that the tenant is there."""
_ALLOWANCE = 0.05
"""Seconds of CPU that a tenant may take at once, however it has been before: a page that asks for many things."""
_REMEMBERED = 10_000


class ProcessorTime:
    """What tenants have taken of one event loop lately.

    Args:
        share: how much of the loop's time a tenant may take without end, from 0 to 1.
        clock: seconds, steadily.
    """

    __slots__ = ("_before", "_clock", "_debts", "_latest", "_latest_at", "_share")

    def __init__(self, share: float, *, clock: Callable[[], float] = monotonic) -> None:
        self._share = share
        self._clock = clock
        # What is not paid off yet, in seconds of CPU, and when that was so.
        self._debts: dict[str, tuple[float, float]] = {}
        self._latest = ""
        self._latest_at = self._before = float("-inf")

    def spend(self, key: str, seconds: float) -> None:
        """Note what one step has cost."""
        debts, now = self._debts, self._clock()
        debt, since = debts.get(key, (0.0, now))
        left = debt - (now - since) * self._share
        if len(debts) >= _REMEMBERED and key not in debts:
            self._forget(now)
        debts[key] = ((left if left > 0 else 0.0) + seconds, now)

    def comes(self, key: str) -> bool:
        """Note that a tenant's request is there; whether the tenant has to give way to others.

        It has to where it has taken more than its share, and somebody else was there within the last second.
        """
        now = self._clock()
        if key != self._latest:
            self._latest, self._before = key, self._latest_at
        self._latest_at = now
        if now - self._before > _NEAR:
            return False
        found = self._debts.get(key)
        return found is not None and found[0] - (now - found[1]) * self._share > _ALLOWANCE

    def _forget(self, now: float) -> None:
        owing = {key: (debt, at) for key, (debt, at) in self._debts.items() if debt > (now - at) * self._share}
        self._debts = owing if len(owing) < _REMEMBERED else {}
