"""Waiting for a share: bounded, fair, and safe to cancel at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tenantry.tenancy.bulkheads import Bulkhead, ProcessBusyException, TenantBusyException, share_of

KEYS = ("acme", "globex", "initech")
QUEUE = 4


class BulkheadMachine(RuleBasedStateMachine):
    """Tasks that come, go, are cancelled and give up, in any order and between any two turns of the loop."""

    @initialize(slots=st.integers(1, 5), share=st.integers(1, 3))
    def begin(self, slots: int, share: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.slots, self.share = slots, share
        self.bulkhead = Bulkhead("test", slots, queue=QUEUE, patience=1000)
        self.holding: list[tuple[str, asyncio.Event]] = []
        self.tasks: dict[asyncio.Task[None], str] = {}
        self.most: dict[str, int] = dict.fromkeys(KEYS, 0)
        self.inside: dict[str, int] = dict.fromkeys(KEYS, 0)

    async def visit(self, key: str, ends: asyncio.Event) -> None:
        if not self.bulkhead.take(key, self.share):
            await self.bulkhead.wait(key, self.share)
        self.inside[key] += 1
        self.holding.append((key, ends))
        try:
            await ends.wait()
        finally:
            self.inside[key] -= 1
            self.holding.remove((key, ends))
            self.bulkhead.give(key)

    def turn(self, coroutine: Coroutine[Any, Any, None] | None = None) -> None:
        async def once() -> None:
            await asyncio.sleep(0)

        self.loop.run_until_complete(coroutine or once())

    @rule(key=st.sampled_from(KEYS))
    def come(self, key: str) -> None:
        task = self.loop.create_task(self.visit(key, asyncio.Event()))
        self.tasks[task] = key

    @rule()
    def let_the_loop_turn(self) -> None:
        self.turn()

    @precondition(lambda self: self.holding)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.holding))[1].set()

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(list(self.tasks))).cancel()

    @precondition(lambda self: self.holding)
    @rule(data=st.data())
    def end_and_cancel_whoever_is_next(self, data: st.DataObject) -> None:
        """The narrowest moment: let in by one, and cancelled before it could go on."""
        data.draw(st.sampled_from(self.holding))[1].set()
        self.turn()
        for task in list(self.tasks):
            if not task.done() and data.draw(st.booleans()):
                task.cancel()

    @invariant()
    def nobody_has_more_than_the_share(self) -> None:
        assert sum(self.inside.values()) <= self.slots
        assert all(count <= self.share for count in self.inside.values())
        assert all(self.bulkhead.waiting(key) <= QUEUE for key in KEYS)
        for task in [task for task in self.tasks if task.done()]:
            if not task.cancelled() and (error := task.exception()) is not None:
                assert isinstance(error, TenantBusyException | ProcessBusyException)
            del self.tasks[task]

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            # Everybody goes home, in turn; then every slot must be there again.
            for _ in range(200):
                for _, ends in list(self.holding):
                    ends.set()
                self.turn()
                self.nobody_has_more_than_the_share()
                if not self.tasks:
                    break
            assert not self.tasks, "somebody was never let in"
            assert self.bulkhead.used == 0
            assert not any(self.bulkhead.held(key) or self.bulkhead.waiting(key) for key in KEYS)
        finally:
            self.loop.close()


TestBulkhead = BulkheadMachine.TestCase
TestBulkhead.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


async def test_whoever_finds_the_queue_full_is_refused_for_the_tenants_own_share() -> None:
    bulkhead = Bulkhead("test", 10, queue=1, patience=1000)
    assert bulkhead.take("acme", 1)
    waiting = asyncio.create_task(bulkhead.wait("acme", 1))
    await asyncio.sleep(0)
    with pytest.raises(TenantBusyException) as refused:
        await bulkhead.wait("acme", 1)
    assert refused.value.status_code == 429
    assert refused.value.headers is not None
    assert refused.value.headers["Retry-After"] == "1"
    assert bulkhead.take("globex", 1), "another tenant does not notice"
    bulkhead.give("acme")
    await waiting


async def test_whoever_waits_too_long_is_told_whose_fault_it_is() -> None:
    bulkhead = Bulkhead("test", 2, queue=5, patience=0.01)
    assert bulkhead.take("acme", 1)
    with pytest.raises(TenantBusyException):
        await bulkhead.wait("acme", 1)
    assert bulkhead.take("globex", 1)
    with pytest.raises(ProcessBusyException) as refused:
        await bulkhead.wait("initech", 1)
    assert refused.value.status_code == 503
    assert (bulkhead.used, bulkhead.waiting("acme"), bulkhead.waiting("initech")) == (2, 0, 0)


async def test_a_larger_share_lets_in_those_who_came_before_as_well() -> None:
    bulkhead = Bulkhead("test", 10, queue=5, patience=1000)
    assert bulkhead.take("acme", 1)
    order: list[str] = []

    async def come(name: str, share: int) -> None:
        await bulkhead.wait("acme", share)
        order.append(name)

    first = asyncio.create_task(come("first", 1))
    await asyncio.sleep(0)
    assert not bulkhead.take("acme", 3), "those who came before are not overtaken"
    await asyncio.gather(first, asyncio.create_task(come("second", 3)))
    assert sorted(order) == ["first", "second"], "both: the one who waited needs nobody to leave"


def test_a_share_is_at_least_one() -> None:
    assert [share_of(30, of) for of in (1, 3, 10, 13)] == [1, 1, 3, 3]
