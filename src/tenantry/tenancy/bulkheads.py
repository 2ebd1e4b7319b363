"""Bulkheads: what one tenant may have of a process, so that it sinks alone.

A tenant that is at its share waits for itself; when the process as a whole is short, tenants wait by turns. Both queues
are bounded in length and time. Nothing is awaited, and nothing of asyncio's is touched, as long as nobody has to wait.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

from tenantry.kernel.errors import TooManyRequestsException, UnavailableException, define_problem
from tenantry.kernel.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable

__all__ = ("Bulkhead", "ProcessBusyException", "TenantBusyException", "share_of")

TENANT_BUSY = define_problem(
    "tenant-busy",
    429,
    "Too much at a time",
    "The organization has as much at work as it may at a time, and as much waits, or what waited did so for too long. "
    "Others are served. Retry-After says when to come back, in seconds.",
)

_waiting = Gauge(
    "tenantry_bulkhead_waiting",
    "Requests that wait for a share of what is named, by the plan of their organization.",
    ("resource", "plan"),
    multiprocess_mode="livesum",
)
_refused = Counter(
    "tenantry_bulkhead_refused",
    "Requests that were refused a share of what is named: the organization's own was used up, or the process'.",
    ("resource", "reason", "plan"),
)


class TenantBusyException(TooManyRequestsException):
    """The tenant's own share is used up, and so is its patience (429)."""

    problem = TENANT_BUSY


class ProcessBusyException(UnavailableException):
    """The process has nothing left for anybody (503)."""

    default_detail = "The service is busy."


def share_of(percent: int, of: int) -> int:
    """A share in percent as a number, at least one."""
    return max(1, of * percent // 100)


class Bulkhead:
    """Slots of one event loop, held under keys; see `tenantry.kernel.turns.Turns`.

    Args:
        resource: what is shared, as metrics call it.
        slots: how many the process has.
        queue: how many may wait under one key.
        patience: how long, in seconds.
        reserved, privileged: as of `Turns`.

    `take` and, where that is False, `wait`; then `give`, once.
    """

    def __init__(
        self,
        resource: str,
        slots: int,
        *,
        queue: int,
        patience: float,
        reserved: int = 0,
        privileged: Collection[Hashable] = (),
    ) -> None:
        self._turns: Turns[Hashable, asyncio.Future[None]] = Turns(slots, reserved=reserved, privileged=privileged)
        self._resource = resource
        self._queue = queue
        self._patience = patience
        self.take: Callable[[Hashable, int], bool] = self._turns.take
        """Take a slot under a key with so large a share, if that can be had at once."""

    @property
    def used(self) -> int:
        return self._turns.used

    def held(self, key: Hashable) -> int:
        return self._turns.held(key)

    def waiting(self, key: Hashable) -> int:
        return self._turns.waiting(key)

    async def wait(self, key: Hashable, share: int, *, plan: str = "") -> None:
        """Wait for a slot; whoever is cancelled meanwhile holds none.

        Raises:
            TenantBusyException: the queue is full, or time is over, with the key at its share.
            ProcessBusyException: likewise, with all slots taken by others.
        """
        turns = self._turns
        if turns.waiting(key) >= self._queue:
            raise self._refusal(key, share, plan)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        turns.wait(key, share, waiter)
        # At once where the share has grown; those of before come first.
        self._let_in()
        timer = loop.call_later(self._patience, self._give_up, key, waiter)
        gauge = _waiting.labels(self._resource, plan)
        gauge.inc()
        try:
            await waiter
        except TimeoutError:
            raise self._refusal(key, share, plan) from None
        except BaseException:
            if not turns.withdraw(key, waiter) and _is_let_in(waiter):
                # Cancelled in the moment between being let in and going on.
                turns.leave(key)
            self._let_in()
            raise
        finally:
            timer.cancel()
            gauge.dec()

    def give(self, key: Hashable) -> None:
        """Give a slot back, and let in whoever is next."""
        self._turns.leave(key)
        if self._turns.keys_waiting:
            self._let_in()

    def _let_in(self) -> None:
        while (found := self._turns.next()) is not None:
            key, waiter = found
            if waiter.done():
                # Cancelled, and not yet awake to withdraw.
                self._turns.leave(key)
            else:
                waiter.set_result(None)

    def _give_up(self, key: Hashable, waiter: asyncio.Future[None]) -> None:
        if self._turns.withdraw(key, waiter) and not waiter.done():
            waiter.set_exception(TimeoutError())

    def _refusal(self, key: Hashable, share: int, plan: str) -> TenantBusyException | ProcessBusyException:
        own = self._turns.held(key) >= share
        _refused.labels(self._resource, "tenant" if own else "process", plan).inc()
        if own:
            return TenantBusyException(
                "The organization has as much at work as it may at a time.", resource=self._resource, limit=share
            )
        return ProcessBusyException()


def _is_let_in(waiter: asyncio.Future[None]) -> bool:
    return waiter.done() and not waiter.cancelled() and waiter.exception() is None
