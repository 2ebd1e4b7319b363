"""One connection for all small calls: order, time-outs, answers to the right one, and never a request that waits."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tenantry.jobs.patience import answer
from tenantry.kernel.breaker import Breaker
from tenantry.kernel.line import Line, RedisAway, Script
from tenantry.kernel.redis import create_redis
from tests.redis_proxy import Wire, open_wire
from tests.servers import REDIS_URL

TIMEOUT = 0.4


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with open_wire(os.environ[REDIS_URL]) as wire:
        yield wire


@pytest.fixture
async def redis(wire: Wire) -> AsyncIterator[Redis]:
    redis = create_redis(wire.url, timeout=TIMEOUT)
    yield redis
    await redis.aclose()


@pytest.fixture
async def breaker(redis: Redis) -> AsyncIterator[Breaker]:
    breaker = Breaker("test-line", lambda: answer(redis.ping()), pause=0.01, longest=0.05)
    yield breaker
    await breaker.stop()


@pytest.fixture
async def line(redis: Redis, breaker: Breaker) -> AsyncIterator[Line]:
    line = Line(redis, breaker, timeout=TIMEOUT)
    yield line
    await line.close()


@pytest.fixture
def key() -> str:
    return f"test:{uuid4()}"


async def until_open(line: Line) -> None:
    async with asyncio.timeout(10):
        while not line.is_open:
            await asyncio.sleep(0.005)


async def test_everybody_gets_their_own_answer(line: Line, wire: Wire) -> None:
    await line.ask("PING")
    before = wire.messages
    answers = await asyncio.gather(*(line.ask("ECHO", str(number)) for number in range(200)))
    assert answers == [str(number).encode() for number in range(200)]
    assert wire.messages - before <= 3, "calls that come up together share a message"


async def test_calls_are_done_in_the_order_in_which_they_were_made(line: Line, key: str) -> None:
    line.tell("SET", key, "1")
    line.tell("APPEND", key, "2")
    asked = asyncio.create_task(line.ask("GET", key))
    await asyncio.sleep(0)
    line.tell("APPEND", key, "3")
    assert await asked == b"12"
    assert await line.ask("GET", key) == b"123"


async def test_a_refusal_is_one_callers_alone(line: Line, key: str) -> None:
    answers = await asyncio.gather(
        line.ask("SET", key, "text"), line.ask("INCR", key), line.ask("GET", key), return_exceptions=True
    )
    assert answers[0] == b"OK"
    assert isinstance(answers[1], ResponseError)
    assert answers[2] == b"text"
    assert line.is_open


async def test_a_script_that_redis_has_forgotten_is_sent_again(line: Line, redis: Redis) -> None:
    script = Script(redis, f"return {{KEYS[1], ARGV[1], '{uuid4()}'}}")
    assert (await line.run(script, ["a"], "b"))[:2] == [b"a", b"b"]
    assert await redis.script_exists(script.sha) == [True]
    await redis.script_flush()
    answers = await asyncio.gather(*(line.run(script, ["a"], number) for number in range(5)))
    assert [answer[1] for answer in answers] == [str(number).encode() for number in range(5)]


async def test_one_who_leaves_takes_nobodys_answer_along(line: Line, wire: Wire) -> None:
    await line.ask("PING")
    wire.hang()
    first, second = (asyncio.create_task(line.ask("ECHO", text)) for text in ("first", "second"))
    await asyncio.sleep(0.01)
    first.cancel()
    wire.mend()
    assert await second == b"second"
    assert await line.ask("ECHO", "third") == b"third"


async def test_a_redis_that_hangs_costs_one_time_out_and_then_nothing(
    line: Line, wire: Wire, breaker: Breaker, key: str
) -> None:
    await line.ask("PING")
    wire.hang()
    began = time.perf_counter()
    first = await asyncio.gather(*(line.ask("INCR", key) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(answer, RedisAway) and answer.was_sent for answer in first)
    assert TIMEOUT * 0.9 <= time.perf_counter() - began < TIMEOUT + 1
    assert not breaker.is_closed
    began = time.perf_counter()
    for _ in range(1000):
        with pytest.raises(RedisAway) as refused:
            await line.ask("INCR", key)
        assert not refused.value.was_sent
        assert not line.tell("INCR", key)
    assert time.perf_counter() - began < 0.5, "half a millisecond each, on the slowest of machines"
    wire.mend()
    await until_open(line)
    assert await line.ask("PING") == b"PONG"


async def test_who_comes_while_an_answer_is_late_does_not_wait_for_it(line: Line, wire: Wire) -> None:
    await line.ask("PING")
    wire.hang()
    waiting = asyncio.create_task(line.ask("PING"))
    async with asyncio.timeout(5):
        while line.is_open:
            await asyncio.sleep(0.002)
    assert not waiting.done(), "the breaker has not opened yet"
    with pytest.raises(RedisAway) as refused:
        await line.ask("PING")
    assert not refused.value.was_sent
    wire.mend()
    assert await waiting == b"PONG"
    await until_open(line)


async def test_a_connection_that_the_server_has_closed_is_replaced_unseen(
    line: Line, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenantry.kernel.line._IDLE", 0.0)
    number = await line.ask("CLIENT", "ID")
    await redis.client_kill_filter(_id=str(number))
    assert await line.ask("CLIENT", "ID") != number


async def test_cut_off_it_fails_at_once_and_comes_back_by_itself(line: Line, wire: Wire, breaker: Breaker) -> None:
    await line.ask("PING")
    wire.cut()
    for _ in range(3):
        with pytest.raises(RedisAway):
            await line.ask("PING")
    assert not breaker.is_closed
    wire.mend()
    await until_open(line)
    assert await line.ask("PING") == b"PONG"


async def test_a_redis_that_is_full_is_as_good_as_away(line: Line, breaker: Breaker, redis: Redis) -> None:
    full = Script(redis, "return redis.error_reply('OOM command not allowed when used memory is above')")
    for _ in range(2):
        with pytest.raises(RedisAway):
            await line.run(full, ["a"])
    assert not breaker.is_closed
    await until_open(line)
