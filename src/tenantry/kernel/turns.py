"""Slots that many share: how many each may hold, and whose turn it is when there are none.

Bookkeeping alone, without a clock, a thread or an event loop, so that connections, requests and hashes are shared by
one rule, and the rule can be tested against a model. Whoever holds a slot or waits for one does so under a key, a
tenant's. A key never holds more than its share. When all slots are taken, those who wait are let in by turns of their
keys and not in the order in which they came: a hundred of one key keep a single one of another waiting for one turn.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Generic, TypeVar

__all__ = ("Turns",)

K = TypeVar("K", bound=Hashable)
W = TypeVar("W", bound=Hashable)


class Turns(Generic[K, W]):
    """Who holds slots, and who waits.

    Args:
        slots: how many there are.
        reserved: so many of them are for the keys of `privileged` alone, who also come first when one is free.
        privileged: those keys. Beyond the reserved slots they share with everybody.

    After `wait`, `leave` and `withdraw`, call `next` until it returns None: it lets in whoever may have what is free.
    """

    __slots__ = ("_common", "_first", "_held", "_open", "_privileged", "_queues", "_ring", "_shares", "_slots", "_used")

    def __init__(self, slots: int, *, reserved: int = 0, privileged: Collection[K] = ()) -> None:
        if not 0 <= reserved < slots:
            raise ValueError(f"of {slots} slots, {reserved} cannot be reserved")
        self._slots = slots
        self._open = slots - reserved
        self._privileged = frozenset(privileged)
        self._used = 0
        self._common = 0
        """Of those used, by keys that are not privileged."""
        self._held: dict[K, int] = {}
        self._queues: dict[K, dict[W, None]] = {}
        self._shares: dict[K, int] = {}
        """Of the keys that wait."""
        # Keys that wait and are below their share, in the order of their turns.
        self._ring: dict[K, None] = {}
        self._first: dict[K, None] = {}

    @property
    def used(self) -> int:
        return self._used

    @property
    def keys_waiting(self) -> int:
        return len(self._queues)

    def held(self, key: K) -> int:
        """How many slots a key holds."""
        return self._held.get(key, 0)

    def waiting(self, key: K) -> int:
        """How many wait under a key."""
        return len(self._queues.get(key, ()))

    def take(self, key: K, share: int) -> bool:
        """Take a slot if there is one for the key now, and nobody of its own waits already."""
        held = self._held.get(key, 0)
        if held >= share or self._used >= self._slots or key in self._queues:
            return False
        if key not in self._privileged:
            if self._common >= self._open:
                return False
            self._common += 1
        self._used += 1
        self._held[key] = held + 1
        return True

    def wait(self, key: K, share: int, waiter: W) -> None:
        """Stand at the end of the key's queue. `share` holds for all who wait under the key from now on.

        Raises:
            ValueError: the share lets nobody in, ever.
        """
        if share < 1:
            raise ValueError(f"a share is at least 1, not {share}")
        self._queues.setdefault(key, {})[waiter] = None
        self._shares[key] = share
        self._line_up(key)

    def withdraw(self, key: K, waiter: W) -> bool:
        """Wait no longer; False where the waiter had been let in, or was never there."""
        queue = self._queues.get(key)
        if queue is None or waiter not in queue:
            return False
        del queue[waiter]
        if not queue:
            self._forget(key)
        return True

    def leave(self, key: K) -> None:
        """Give a slot back.

        Raises:
            RuntimeError: the key holds none.
        """
        held = self._held.get(key, 0)
        if held == 0:
            raise RuntimeError(f"{key!r} holds no slot")
        if held == 1:
            del self._held[key]
        else:
            self._held[key] = held - 1
        self._used -= 1
        if key not in self._privileged:
            self._common -= 1
        if key in self._queues:
            self._line_up(key)

    def next(self) -> tuple[K, W] | None:
        """Let in whoever is next, who holds a slot from now on; None where nobody who waits may have one."""
        if self._used >= self._slots:
            return None
        while self._first:
            if (found := self._let_in(self._first)) is not None:
                return found
        while self._ring and self._common < self._open:
            if (found := self._let_in(self._ring)) is not None:
                return found
        return None

    def _let_in(self, ring: dict[K, None]) -> tuple[K, W] | None:
        key = next(iter(ring))
        del ring[key]
        held = self._held.get(key, 0)
        if held >= self._shares[key]:
            # Its share became smaller meanwhile; it is in line again when it has given back enough.
            return None
        queue = self._queues[key]
        waiter = next(iter(queue))
        del queue[waiter]
        self._held[key] = held + 1
        self._used += 1
        if ring is self._ring:
            self._common += 1
        if queue:
            self._line_up(key)
        else:
            self._forget(key)
        return key, waiter

    def _line_up(self, key: K) -> None:
        ring = self._first if key in self._privileged else self._ring
        if key not in ring and self._held.get(key, 0) < self._shares[key]:
            ring[key] = None

    def _forget(self, key: K) -> None:
        del self._queues[key], self._shares[key]
        self._ring.pop(key, None)
        self._first.pop(key, None)
