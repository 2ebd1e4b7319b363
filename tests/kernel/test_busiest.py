"""The busiest tenants: what the counts promise, whatever comes, and that there are never more series than were set."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.kernel.busiest import OTHERS, WINDOW, Busiest, BusiestTenants

KEYS = st.lists(st.tuples(st.sampled_from("abcdefghijkl"), st.integers(0, 5)), max_size=200)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000_000.0 // WINDOW * WINDOW

    def __call__(self) -> float:
        return self.now


@given(KEYS, st.integers(1, 6))
def test_no_count_is_too_low_nor_higher_than_its_error_says(stream: list[tuple[str, int]], capacity: int) -> None:
    busiest, true = Busiest(capacity), Counter[str]()
    for key, weight in stream:
        busiest.add(key, weight)
        true[key] += weight
    found = busiest.top(capacity)
    assert len(found) == min(capacity, len(true))
    assert sum(heavy.weight for heavy in found) == busiest.total == true.total()
    for heavy in found:
        assert heavy.weight - heavy.error <= true[heavy.key] <= heavy.weight
        assert heavy.error <= busiest.total / capacity
    assert [heavy.weight for heavy in found] == sorted((heavy.weight for heavy in found), reverse=True)


@given(KEYS, st.integers(1, 6))
def test_whoever_has_more_than_a_counters_share_is_found(stream: list[tuple[str, int]], capacity: int) -> None:
    busiest, true = Busiest(capacity), Counter[str]()
    for key, weight in stream:
        busiest.add(key, weight)
        true[key] += weight
    found = {heavy.key for heavy in busiest.top(capacity)}
    assert {key for key, weight in true.items() if weight > busiest.total / capacity} <= found


@given(KEYS)
def test_with_room_for_all_every_count_is_exact(stream: list[tuple[str, int]]) -> None:
    busiest, true = Busiest(12), Counter[str]()
    for key, weight in stream:
        busiest.add(key, weight)
        true[key] += weight
    assert {heavy.key: (heavy.weight, heavy.error) for heavy in busiest.top(12)} == {
        key: (weight, 0) for key, weight in true.items()
    }


def test_there_must_be_room_for_one() -> None:
    with pytest.raises(ValueError, match="one key"):
        Busiest(0)


def series(tenants: BusiestTenants) -> dict[str, dict[str, float]]:
    return {
        family.name: {sample.labels["tenant"]: sample.value for sample in family.samples}
        for family in tenants.collect()
    }


def test_only_so_many_tenants_have_series_and_the_others_are_one() -> None:
    clock = Clock()
    tenants = BusiestTenants(most=2, clock=clock)
    for number in range(1, 51):
        for _ in range(number):
            tenants.observe(f"tenant-{number}", 0.5)
    clock.now += WINDOW
    found = series(tenants)
    assert found["tenantry_tenant_requests_per_second"] == {
        "tenant-50": 50 / WINDOW,
        "tenant-49": 49 / WINDOW,
        OTHERS: pytest.approx((sum(range(1, 51)) - 99) / WINDOW),
    }
    assert found["tenantry_tenant_requests_at_once"]["tenant-50"] == pytest.approx(25 / WINDOW)


def test_a_window_is_told_once_it_is_over_and_until_the_next_is() -> None:
    clock = Clock()
    tenants = BusiestTenants(clock=clock)
    tenants.observe("acme", 1.0)
    assert series(tenants)["tenantry_tenant_requests_per_second"] == {}
    clock.now += WINDOW
    tenants.observe("globex", 1.0)
    assert series(tenants)["tenantry_tenant_requests_per_second"] == {"acme": 1 / WINDOW, OTHERS: 0}
    clock.now += WINDOW
    assert series(tenants)["tenantry_tenant_requests_per_second"] == {"globex": 1 / WINDOW, OTHERS: 0}
    clock.now += 2 * WINDOW
    assert series(tenants)["tenantry_tenant_requests_per_second"].keys() <= {OTHERS}


def test_a_deployment_may_have_no_such_series() -> None:
    clock = Clock()
    tenants = BusiestTenants(most=0, clock=clock)
    tenants.observe("acme", 1.0)
    clock.now += WINDOW
    assert series(tenants) == {"tenantry_tenant_requests_per_second": {}, "tenantry_tenant_requests_at_once": {}}


WORKER = """
import sys
from tenantry.kernel.busiest import BusiestTenants
now = [1_200_000_000.0]
tenants = BusiestTenants(most=2, clock=lambda: now[0])
for name in sys.argv[1].split(","):
    tenants.observe(name, 0.25)
now[0] += 60
for family in tenants.collect():
    for sample in family.samples:
        print(family.name, sample.labels["tenant"], round(sample.value * 60, 6))
"""


def test_several_processes_tell_of_all_of_them(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def run(names: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", WORKER, names],
            env=environment, check=True, capture_output=True, text=True,
        )  # fmt: skip
        return {line.removeprefix("tenantry_tenant_") for line in done.stdout.splitlines()}

    # In neither process the first, and the first of both.
    run("a,a,a,b,b")
    found = run("c,c,c,b,b")
    assert found == {
        *("requests_per_second b 4.0", "requests_per_second a 3.0", "requests_per_second _other 3.0"),
        *("requests_at_once b 1.0", "requests_at_once a 0.75", "requests_at_once _other 0.75"),
    }
