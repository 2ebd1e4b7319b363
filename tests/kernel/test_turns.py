"""Slots that many share, against a model that finds out who is next the long way."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tenantry.kernel.turns import Turns

KEYS = ("acme", "globex", "initech", "control")
CONTROL = "control"
keys = st.sampled_from(KEYS)


class TurnsMachine(RuleBasedStateMachine):
    """Whatever happens: no share is exceeded, no slot is lost, nobody waits for what is free, and turns go round."""

    @initialize(slots=st.integers(1, 6), data=st.data())
    def begin(self, slots: int, data: st.DataObject) -> None:
        self.slots = slots
        self.reserved = data.draw(st.integers(0, slots - 1))
        self.shares = {key: data.draw(st.integers(1, slots)) for key in KEYS}
        self.turns: Turns[str, int] = Turns(slots, reserved=self.reserved, privileged={CONTROL})
        self.held: dict[str, int] = dict.fromkeys(KEYS, 0)
        self.queues: dict[str, list[int]] = {key: [] for key in KEYS}
        self.passed_over: dict[int, dict[str, int]] = {}
        self.number = 0

    def may_have(self, key: str) -> bool:
        common = sum(count for name, count in self.held.items() if name != CONTROL)
        room = sum(self.held.values()) < self.slots and (key == CONTROL or common < self.slots - self.reserved)
        return room and self.held[key] < self.shares[key]

    def let_in(self) -> None:
        while (found := self.turns.next()) is not None:
            key, waiter = found
            assert self.may_have(key)
            assert self.queues[key].pop(0) == waiter, "within a key, the first comes first"
            assert key == CONTROL or not (self.queues[CONTROL] and self.may_have(CONTROL))
            self.held[key] += 1
            for other, queue in self.queues.items():
                if key == CONTROL or other == key or not queue or self.held[other] >= self.shares[other]:
                    continue
                # No starvation: while one waits below its share, another key is let in once, not twice.
                passed = self.passed_over[queue[0]]
                passed[key] = passed.get(key, 0) + 1
                assert passed[key] <= 2
            if self.queues[key]:
                self.passed_over[self.queues[key][0]] = {}

    @rule(key=keys)
    def come(self, key: str) -> None:
        at_once = self.may_have(key) and not self.queues[key]
        assert self.turns.take(key, self.shares[key]) is at_once
        if at_once:
            self.held[key] += 1
        else:
            self.number += 1
            self.queues[key].append(self.number)
            self.passed_over[self.number] = {}
            self.turns.wait(key, self.shares[key], self.number)
            self.let_in()

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from([key for key in KEYS if self.held[key]]))
        self.held[key] -= 1
        self.turns.leave(key)
        for queue in self.queues.values():
            if queue and self.held[key] + 1 >= self.shares[key]:
                self.passed_over[queue[0]].pop(key, None)
        self.let_in()

    @precondition(lambda self: any(self.queues.values()))
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from([key for key in KEYS if self.queues[key]]))
        waiter = data.draw(st.sampled_from(self.queues[key]))
        self.queues[key].remove(waiter)
        assert self.turns.withdraw(key, waiter) is True
        assert self.turns.withdraw(key, waiter) is False
        if self.queues[key]:
            self.passed_over[self.queues[key][0]] = {}
        self.let_in()

    @rule(key=keys, share=st.integers(1, 6))
    def change_plan(self, key: str, share: int) -> None:
        self.shares[key] = share
        for queue in self.queues.values():
            for waiter in queue:
                self.passed_over[waiter] = {}
        if self.queues[key]:
            # A share is known from whoever comes with it.
            self.number += 1
            self.queues[key].append(self.number)
            self.passed_over[self.number] = {}
            self.turns.wait(key, share, self.number)
            self.let_in()

    @invariant()
    def counts_are_the_models(self) -> None:
        assert self.turns.used == sum(self.held.values())
        for key in KEYS:
            assert self.turns.held(key) == self.held[key]
            assert self.turns.waiting(key) == len(self.queues[key])

    @invariant()
    def nobody_waits_for_what_is_free(self) -> None:
        assert not [key for key in KEYS if self.queues[key] and self.may_have(key)]


TestTurns = TurnsMachine.TestCase
TestTurns.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_single_waiter_is_passed_over_once_by_each_other_key_and_no_more() -> None:
    turns: Turns[str, str] = Turns(1)
    assert turns.take("flood", 1)
    for number in range(100):
        turns.wait("flood", 1, f"flood {number}")
    turns.wait("quiet", 1, "quiet")
    order = []
    holder = "flood"
    for _ in range(3):
        turns.leave(holder)
        found = turns.next()
        assert found is not None
        holder = found[0]
        order.append(found[1])
    assert order.index("quiet") <= 1


def test_what_is_reserved_is_had_by_the_privileged_alone_and_they_come_first() -> None:
    turns: Turns[str, str] = Turns(3, reserved=1, privileged={CONTROL})
    assert turns.take("acme", 3)
    assert turns.take("globex", 3)
    assert not turns.take("initech", 3)
    assert turns.take(CONTROL, 3)
    turns.wait("initech", 3, "tenant")
    turns.wait(CONTROL, 3, "operator")
    turns.leave("acme")
    assert turns.next() == (CONTROL, "operator")
    assert turns.next() is None


def test_a_slot_cannot_be_given_back_twice() -> None:
    turns: Turns[str, str] = Turns(2)
    assert turns.take("acme", 2)
    turns.leave("acme")
    with pytest.raises(RuntimeError, match="'acme' holds no slot"):
        turns.leave("acme")


def test_a_share_that_lets_nobody_in_is_a_mistake() -> None:
    turns: Turns[str, str] = Turns(2)
    with pytest.raises(ValueError, match="at least 1"):
        turns.wait("acme", 0, "forever")
    with pytest.raises(ValueError, match="cannot be reserved"):
        Turns(2, reserved=2)
