"""What a coroutine's steps cost, and that it notices nothing of being timed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from time import thread_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.kernel.steps import timed


def burn(seconds: float) -> None:
    until = thread_time() + seconds
    while thread_time() < until:
        pass


async def test_only_what_it_does_itself_counts() -> None:
    async def other() -> None:
        burn(0.03)

    async def work() -> str:
        burn(0.01)
        await asyncio.create_task(other())
        burn(0.01)
        await asyncio.sleep(0.03)
        return "done"

    spent: list[float] = []
    assert await timed(work(), spent.append) == "done"
    assert 0.02 <= sum(spent) < 0.03
    assert len(spent) == 3


async def test_an_error_comes_out_and_what_it_cost_is_counted() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise KeyError("x")

    spent: list[float] = []
    with pytest.raises(KeyError, match="x"):
        await timed(work(), spent.append)
    assert len(spent) == 2


async def test_a_cancellation_reaches_it_and_may_be_cleaned_up_after() -> None:
    seen: list[str] = []
    waits = asyncio.Event()

    async def work() -> None:
        try:
            waits.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            await asyncio.sleep(0)
            seen.append("cleaned up")
            raise

    async def run() -> None:
        await timed(work(), lambda _: None)

    task = asyncio.create_task(run())
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled", "cleaned up"]


async def test_one_that_is_dropped_is_closed() -> None:
    closed: list[bool] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    async def run() -> None:
        await timed(work(), lambda _: None)

    dropped = run()
    dropped.send(None)
    dropped.close()
    assert closed == [True]


_Step = tuple[str, int]


def _program(steps: list[_Step], told: list[Any]) -> Callable[[], Awaitable[int]]:
    async def work() -> int:
        total = 0
        for kind, number in steps:
            if kind == "yield":
                await asyncio.sleep(0)
            elif kind == "fail":
                with contextlib.suppress(ValueError):
                    await _fails(number)
                told.append(number)
            elif kind == "raise":
                raise LookupError(number)
            else:
                total += await _gives(number)
        return total

    return work


async def _fails(number: int) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_exception, ValueError(number))
    await future


async def _gives(number: int) -> int:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, number)
    return await future


@given(st.lists(st.tuples(st.sampled_from(["yield", "fail", "give", "give", "raise"]), st.integers(0, 9)), max_size=8))
def test_it_ends_as_it_would_have_without(steps: list[_Step]) -> None:
    async def run(work: Awaitable[int]) -> tuple[str, Any]:
        try:
            return "value", await work
        except LookupError as error:
            return "error", error.args

    alone: list[Any] = []
    watched: list[Any] = []
    expected = asyncio.run(run(_program(steps, alone)()))
    program: Any = _program(steps, watched)
    assert asyncio.run(run(timed(program(), lambda _: None))) == expected
    assert watched == alone
