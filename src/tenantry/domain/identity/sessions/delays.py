"""How long whoever fails has to wait: first not at all, then twice as long each time, then for the time of a lock.

A tally is one subject's: an account as seen from one network, an account from everywhere, an address. `attempt.lua`
does the same in Redis; the tests compare the two. Times are whole milliseconds, which both compute with exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ("Rule", "Tally", "after_attempt", "after_withdrawal", "wait_for")


@dataclass(frozen=True, slots=True)
class Rule:
    """What failures lead to. Times are in milliseconds."""

    free: int
    """Failures after which the next attempt need not wait: everybody mistypes."""
    limit: int
    """From so many on, each is followed by a lock; at most one guess gets through in the time of one."""
    lock: int
    memory: int
    """After so long without an attempt all is forgotten."""

    def delay(self, failures: int) -> int:
        """For how long the next attempt is refused: 1, 2, 4, … seconds, never longer than a lock."""
        if failures >= self.limit:
            return self.lock
        if failures <= self.free:
            return 0
        # 2^30 seconds are longer than any lock.
        return min(1000 << min(failures - self.free - 1, 30), self.lock)


@dataclass(frozen=True, slots=True)
class Tally:
    """Attempts that have not succeeded. Moments are Unix times in milliseconds."""

    failures: int = 0
    refused_until: int = 0
    last_at: int = 0


def wait_for(tally: Tally, rule: Rule, now: int) -> int:
    """For how many more milliseconds an attempt is refused; 0 if it is let through.

    A moment that is further away than a lock is long was written by a clock that was wrong, and holds nobody up.
    """
    return tally.refused_until - now if now < tally.refused_until <= now + rule.lock else 0


def after_attempt(tally: Tally, rule: Rule, now: int) -> Tally:
    """The tally with an attempt that was let through.

    It counts as a failure from the beginning on, until it succeeds: a hundred at once are not all let through because
    none of them has failed yet.
    """
    remembered = tally.failures if now - tally.last_at < rule.memory else 0
    # No further than the limit, where nothing changes any more.
    failures = min(remembered + 1, rule.limit)
    return Tally(failures, now + rule.delay(failures), now)


def after_withdrawal(tally: Tally, now: int) -> Tally:
    """The tally without an attempt that came to no verdict."""
    return replace(tally, failures=max(tally.failures - 1, 0), refused_until=min(tally.refused_until, now))
