"""Who has to give way on the event loop."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tenantry.tenancy.processor import ProcessorTime


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_one_that_takes_much_gives_way_while_others_are_there_and_until_it_has_paid_off() -> None:
    clock = Clock()
    time = ProcessorTime(0.25, clock=clock)
    assert not time.comes("globex")
    time.spend("globex", 0.001)
    time.spend("acme", 0.3)
    assert time.comes("acme")
    assert not time.comes("globex")
    clock.now += 0.9
    # 0.3 taken, 0.225 of it paid off: at least 0.05 may always be taken.
    assert time.comes("acme") is (0.3 - 0.225 > 0.05)
    time.comes("globex")
    clock.now += 0.2
    assert not time.comes("acme")


def test_one_that_is_alone_may_have_all_of_it() -> None:
    clock = Clock()
    time = ProcessorTime(0.25, clock=clock)
    for _ in range(100):
        assert not time.comes("acme")
        time.spend("acme", 1.0)
        clock.now += 1.0
    time.comes("globex")
    assert time.comes("acme")
    # A second later nobody else is there any more, however many of its own have come meanwhile.
    clock.now += 0.6
    assert time.comes("acme")
    clock.now += 0.6
    assert not time.comes("acme")


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 0.01), st.floats(0.04, 1)), max_size=60), st.integers(1, 99)
)
def test_who_stays_within_the_share_never_gives_way(steps: list[tuple[str, float, float]], percent: int) -> None:
    clock = Clock()
    time = ProcessorTime(percent / 100, clock=clock)
    for key, _, pause in steps:
        assert not time.comes(key)
        # No more than what the pause pays off.
        time.spend(key, pause * percent / 100)
        clock.now += pause


@given(st.lists(st.floats(0, 2), min_size=1, max_size=30), st.integers(1, 99))
def test_who_takes_more_than_the_share_for_long_gives_way(burdens: list[float], percent: int) -> None:
    clock = Clock()
    share = percent / 100
    time = ProcessorTime(share, clock=clock)
    debt = 0.0
    for burden in burdens:
        time.comes("other")
        owes = time.comes("acme")
        if abs(debt - 0.05) > 1e-6:
            assert owes is (debt > 0.05)
        time.spend("acme", burden)
        clock.now += 0.5
        debt = max(0.0, debt + burden - 0.5 * share)


def test_what_it_remembers_is_bounded() -> None:
    clock = Clock()
    time = ProcessorTime(0.5, clock=clock)
    for number in range(30_000):
        time.spend(f"t{number}", 1.0)
    time.spend("acme", 1.0)
    time.comes("globex")
    assert time.comes("acme")
    assert len(time._debts) <= 10_000
