"""`python -m benchmarks.steady SPEC`: requests of a mix at a fixed rate, or as many as are taken; one JSON object.

At a rate, a request's latency counts from the moment at which it was due, whatever the ones before it took: a client
that waits for its answers would measure a slow server less often. Without a rate, each connection sends again at once.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import deque
from pathlib import Path
from typing import cast

import msgspec
import uvloop

__all__ = ("Ask", "Heard", "Plan", "send")

_LENGTH = b"content-length:"


class Ask(msgspec.Struct, frozen=True):
    """A whole request, and what it is called in the result."""

    name: str
    data: bytes
    weight: float = 1.0


class Plan(msgspec.Struct, frozen=True):
    """What is to be sent. `rate` in requests a second; 0: `connections` of them, each as fast as it is answered."""

    port: int
    seconds: float
    asks: list[Ask]
    rate: float = 0.0
    connections: int = 0
    seed: int = 1


class Heard(msgspec.Struct, frozen=True):
    """By the name of the requests: latencies in milliseconds, and how often each status came; 0: none did."""

    latencies: dict[str, list[float]]
    statuses: dict[str, dict[str, int]]


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport | None = None
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True

    async def ask(self, data: bytes) -> int:
        """The answer's status; 0 where the connection broke."""
        if self._transport is None or not self.is_open:
            return 0
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lowered = head.lower()
        at = lowered.find(_LENGTH)
        if at >= 0 and len(body) < int(lowered[at + len(_LENGTH) :].split(b"\r\n", 1)[0]):
            return
        self._buffer = b""
        self._end(int(head[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        self._end(0)

    def _end(self, status: int) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _Sender:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._chance = random.Random(plan.seed)
        self._weights = [ask.weight for ask in plan.asks]
        self._idle: deque[_Connection] = deque()
        self.latencies: dict[str, list[float]] = {}
        self.statuses: dict[str, dict[str, int]] = {}

    def choose(self) -> Ask:
        return self._chance.choices(self._plan.asks, self._weights)[0]

    async def once(self, ask: Ask, due: float) -> None:
        connection = self._idle.pop() if self._idle else await self._open()
        status = await connection.ask(ask.data)
        self.latencies.setdefault(ask.name, []).append((time.perf_counter() - due) * 1000)
        counted = self.statuses.setdefault(ask.name, {})
        counted[str(status)] = counted.get(str(status), 0) + 1
        if connection.is_open:
            self._idle.append(connection)

    async def _open(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            return (await loop.create_connection(_Connection, host="127.0.0.1", port=self._plan.port))[1]
        except OSError:
            # Its request is one without an answer.
            return _Connection()

    async def steadily(self) -> None:
        count = round(self._plan.rate * self._plan.seconds)
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                # Not in step with anything, but as many in each span of time.
                due = begun + (number + self._chance.random()) / self._plan.rate
                if (pause := due - time.perf_counter()) > 0:
                    await asyncio.sleep(pause)
                group.create_task(self.once(self.choose(), due))

    async def greedily(self) -> None:
        until = time.perf_counter() + self._plan.seconds

        async def one() -> None:
            while (now := time.perf_counter()) < until:
                await self.once(self.choose(), now)

        async with asyncio.TaskGroup() as group:
            for _ in range(self._plan.connections):
                group.create_task(one())

    def close(self) -> None:
        for connection in self._idle:
            connection.close()


async def send(plan: Plan) -> Heard:
    """Send what is planned, and wait for the answers."""
    sender = _Sender(plan)
    await (sender.steadily() if plan.rate else sender.greedily())
    sender.close()
    return Heard(sender.latencies, sender.statuses)


def main(arguments: list[str]) -> int:
    plan = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=Plan)
    sys.stdout.write(msgspec.json.encode(uvloop.run(send(plan))).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
