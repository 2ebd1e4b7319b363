"""That the benchmark of fairness counts from when a request was due, and computes its ratio the right way round."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from benchmarks import fairness
from benchmarks.flooding import Fairness, Flood, Options, Phase
from benchmarks.steady import Ask, Plan, send

_READ = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Slow:
    """A server that answers one request at a time, each when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            self.asked += 1
            await self.go.wait()
            status = b"200 OK" if self.asked % 2 else b"429 Too Many Requests"
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\n{}")


async def test_at_a_fixed_rate_requests_are_sent_although_none_is_answered_and_wait_from_when_they_were_due() -> None:
    slow = Slow()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await slow.serve(reader, writer)
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        sending = asyncio.create_task(send(Plan(port, 0.2, [Ask("usual", _READ)], rate=50)))
        async with asyncio.timeout(30):
            while slow.asked < 10:
                await asyncio.sleep(0.005)
        slow.go.set()
        heard = await sending
    assert len(heard.latencies["usual"]) == 10
    assert sum(heard.statuses["usual"].values()) == 10
    # The first was due at least eight intervals, of a fiftieth of a second, before the last was asked.
    assert max(heard.latencies["usual"]) - min(heard.latencies["usual"]) > 80


async def test_a_server_that_is_not_there_is_a_request_without_an_answer() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    heard = await send(Plan(port, 0.1, [Ask("usual", _READ)], rate=20))
    assert heard.statuses == {"usual": {"0": 2}}


def phase(flood: Flood, *, limits: bool, flooded: bool, latency: float) -> Phase:
    return Phase(
        flood=flood,
        limits=limits,
        flooded=flooded,
        latencies=[latency] * 100,
        log_ins=[latency * 10],
        failed=0,
        flood_statuses={"200": 5, "429": 7} if flooded else {},
    )


@pytest.fixture
def result() -> Fairness:
    phases = [
        phase("reads", limits=limits, flooded=flooded, latency=latency)
        for limits, flooded, latency in (
            (True, False, 4.0),
            (True, True, 5.0),
            (False, False, 4.0),
            (False, True, 40.0),
        )
    ]
    return Fairness(Options(floods=("reads",), rounds=1), phases)


def test_the_ratio_is_that_of_the_flooded_to_the_quiet_phase_of_the_same_process(result: Fairness) -> None:
    assert result.ratio("reads", limits=True) == 1.25
    assert result.ratio("reads", limits=False) == 10.0
    assert result.ratio("reads", limits=True, log_ins=True) == 1.25
    assert result.spread("reads", limits=False) == (10.0, 10.0)


def test_table_json_and_plot_show_both(result: Fairness, tmp_path: Path) -> None:
    console = Console(width=150, file=io.StringIO())
    with console.capture() as captured:
        console.print(fairness.table(result))
    shown = captured.get()
    assert "1.25" in shown
    assert "10.00" in shown
    assert "429:7" in shown
    document, plot = fairness.write(result, tmp_path)
    found = msgspec.json.decode(document.read_bytes())
    assert [line["ratio"] for line in found["lines"]] == [1.25, 10.0]
    assert plot.stat().st_size > 1000
