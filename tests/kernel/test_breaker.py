"""Doing without a service that is away: nobody waits for it, nobody has to try whether it is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from tenantry.kernel.breaker import Breaker, State


class Service:
    """What is asked; `probed` counts the asking."""

    def __init__(self) -> None:
        self.is_there = False
        self.probed = 0
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()

    async def probe(self) -> None:
        self.probed += 1
        self.asked.set()
        await self.answers.wait()
        if not self.is_there:
            raise ConnectionError("nobody there")


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
async def breaker(service: Service) -> AsyncIterator[Breaker]:
    breaker = Breaker("test", service.probe, failures=2, pause=0.005, longest=0.02, patience=0.5)
    yield breaker
    service.answers.set()
    await breaker.stop()


async def until(condition: object, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.002)


def state() -> float | None:
    return REGISTRY.get_sample_value("tenantry_breaker_state", {"breaker": "test"})


async def test_one_failure_is_forgiven_and_two_in_a_row_are_not(breaker: Breaker) -> None:
    for _ in range(3):
        breaker.failed(ConnectionError())
        assert breaker.is_closed
        breaker.succeeded()
    breaker.failed(ConnectionError())
    breaker.failed(ConnectionError())
    assert not breaker.is_closed
    assert state() == State.OPEN


async def test_a_time_out_opens_it_at_once_since_somebody_has_waited_for_all_of_it(breaker: Breaker) -> None:
    breaker.failed(TimeoutError())
    assert not breaker.is_closed


async def test_it_finds_out_by_itself_that_the_service_is_back(breaker: Breaker, service: Service) -> None:
    with capture_logs() as logs:
        breaker.failed(TimeoutError())
        await until(lambda: service.probed >= 3)
        assert not breaker.is_closed
        service.is_there = True
        await until(lambda: breaker.is_closed)
    assert state() == State.CLOSED
    # Once for each change, however often it was asked.
    assert [(line["log_level"], line["event"]) for line in logs] == [
        ("warning", "done without for now"),
        ("warning", "back again"),
    ]


async def test_while_a_probe_is_on_its_way_nobody_else_asks(breaker: Breaker, service: Service) -> None:
    service.answers.clear()
    breaker.failed(TimeoutError())
    await service.asked.wait()
    assert (breaker.state, breaker.is_closed, state()) == (State.HALF_OPEN, False, 1.0)
    # Whoever had asked before it opened, and has an answer now, does not close it.
    breaker.succeeded()
    assert not breaker.is_closed


async def test_failures_while_it_is_open_start_no_second_probe(breaker: Breaker, service: Service) -> None:
    service.answers.clear()
    openings = REGISTRY.get_sample_value("tenantry_breaker_openings_total", {"breaker": "test"}) or 0
    for _ in range(10):
        breaker.failed(TimeoutError())
    await service.asked.wait()
    assert service.probed == 1
    assert REGISTRY.get_sample_value("tenantry_breaker_openings_total", {"breaker": "test"}) == openings + 1


async def test_a_probe_that_hangs_is_given_up(service: Service) -> None:
    service.answers.clear()
    breaker = Breaker("test", service.probe, pause=0.001, longest=0.001, patience=0.01)
    breaker.failed(TimeoutError())
    await until(lambda: service.probed >= 3)
    await breaker.stop()
    assert not breaker.is_closed


async def test_stopped_it_probes_no_more(breaker: Breaker, service: Service) -> None:
    breaker.failed(TimeoutError())
    await until(lambda: service.probed >= 1)
    await breaker.stop()
    probed = service.probed
    breaker.failed(TimeoutError())
    await asyncio.sleep(0.03)
    assert service.probed == probed
