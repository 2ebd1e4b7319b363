"""`python -m benchmarks.client PORT REQUESTS CONNECTIONS SECONDS SEED`: load where there is no wrk.

Prints one JSON object as wrk's script does. The requests are whole before the clock starts; of an answer, only the
status and the length are read.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path
from typing import cast

import msgspec
import uvloop

__all__ = ("load",)

_LENGTH = b"content-length:"


class _Connection(asyncio.Protocol):
    def __init__(self, requests: list[bytes], chance: random.Random, until: float) -> None:
        self._requests = requests
        self._chance = chance
        self._until = until
        self._buffer = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None
        self.latencies: list[float] = []
        self.refused = 0
        self.broken = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asked by isinstance: uvloop's transports are of no class of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        self._sent_at = time.perf_counter()
        self._transport.write(self._chance.choice(self._requests))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lowered = head.lower()
        at = lowered.find(_LENGTH)
        length = int(lowered[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(body) < length:
            return
        now = time.perf_counter()
        self.latencies.append(now - self._sent_at)
        if head[9:10] != b"2":
            self.refused += 1
        self._buffer = b""
        if now < self._until:
            self._send()
        else:
            self._finish()

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.broken += 1
            self.done.set_result(None)


async def load(port: int, requests: list[bytes], connections: int, seconds: float, seed: int) -> dict[str, float]:
    """Send `requests` at random over `connections` for `seconds`; latencies of the result are in milliseconds."""
    loop = asyncio.get_running_loop()
    chance = random.Random(seed)
    started = time.perf_counter()
    opened = [
        (
            await loop.create_connection(
                lambda: _Connection(requests, chance, started + seconds), host="127.0.0.1", port=port
            )
        )[1]
        for _ in range(connections)
    ]
    _, late = await asyncio.wait([connection.done for connection in opened], timeout=seconds + 30)
    ended = time.perf_counter()
    latencies = sorted(latency for connection in opened for latency in connection.latencies) or [0.0]
    return {
        "requests": sum(len(connection.latencies) for connection in opened),
        "seconds": ended - started,
        "p50": latencies[len(latencies) // 2] * 1000,
        "p99": latencies[int(len(latencies) * 0.99)] * 1000,
        "refused": sum(connection.refused for connection in opened),
        "broken": sum(connection.broken for connection in opened) + len(late),
    }


def main(arguments: list[str]) -> int:
    port, path, connections, seconds, seed = arguments
    requests = [part + b"\r\n\r\n" for part in Path(path).read_bytes().split(b"\r\n\r\n") if part]
    result = uvloop.run(load(int(port), requests, int(connections), float(seconds), int(seed)))
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
