from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest
from litestar.types import Message, Receive, Scope, Send

from tenantry.kernel.http.edge import Edge
from tenantry.kernel.http.shutdown import Shutdown


class Server:
    """A server's own handler, in place as granian's is before the application starts."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def handle(self, number: int, _: FrameType | None) -> None:
        self.heard.append(number)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    before = signal.signal(signal.SIGTERM, made.handle)
    yield made
    signal.signal(signal.SIGTERM, before)


async def test_a_signal_is_heard_here_and_by_the_server(server: Server) -> None:
    shutdown = Shutdown()
    with shutdown.watch():
        assert not await shutdown.within(0)
        waiting = asyncio.create_task(shutdown.within(30))
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(waiting, 5)
        assert server.heard == [signal.SIGTERM]
    os.kill(os.getpid(), signal.SIGTERM)
    assert server.heard == [signal.SIGTERM] * 2
    assert signal.getsignal(signal.SIGTERM) == server.handle


async def test_once_begun_nobody_waits(server: Server) -> None:
    shutdown = Shutdown()
    shutdown.begin()
    began = time.monotonic()
    assert await shutdown.within(30)
    assert time.monotonic() - began < 5


async def test_it_begins_at_the_latest_when_the_application_ends() -> None:
    shutdown = Shutdown()
    with shutdown.watch():
        waiting = asyncio.create_task(shutdown.within(30))
        await asyncio.sleep(0)
    assert await asyncio.wait_for(waiting, 5)


async def test_signals_that_nobody_handles_are_left_alone() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert before == [signal.SIG_DFL, signal.default_int_handler]
    with Shutdown().watch():
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


async def test_a_handler_that_the_server_puts_in_later_is_kept(server: Server) -> None:
    later = Server()
    with Shutdown().watch():
        signal.signal(signal.SIGTERM, later.handle)
    assert signal.getsignal(signal.SIGTERM) == later.handle


def test_outside_of_the_main_thread_it_asks_for_no_signal(server: Server) -> None:
    failed: list[BaseException] = []

    async def watch() -> None:
        with Shutdown().watch():
            assert signal.getsignal(signal.SIGTERM) == server.handle

    def run() -> None:
        try:
            asyncio.run(watch())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert failed == []


@pytest.fixture
def both() -> Iterator[Server]:
    """As granian, which ends in the same way by either signal."""
    made = Server()
    before = {number: signal.signal(number, made.handle) for number in (signal.SIGTERM, signal.SIGINT)}
    yield made
    for number, handler in before.items():
        signal.signal(number, handler)


async def test_a_process_that_drains_serves_on_before_the_server_hears_that_it_is_to_end(both: Server) -> None:
    shutdown = Shutdown(drain=0.2)
    with shutdown.watch():
        began = time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)
        # As granian's main process and an orchestrator may do, both to the same worker.
        os.kill(os.getpid(), signal.SIGTERM)
        while not shutdown.is_draining:
            await asyncio.sleep(0)
        assert both.heard == []
        assert not await shutdown.within(0)
        assert await shutdown.within(30)
        assert time.monotonic() - began >= 0.2
        assert both.heard == [signal.SIGINT]
    assert signal.getsignal(signal.SIGTERM) == both.handle


async def test_who_is_in_front_of_it_need_not_wait(both: Server) -> None:
    shutdown = Shutdown(drain=30)
    with shutdown.watch():
        os.kill(os.getpid(), signal.SIGINT)
        assert await shutdown.within(5)
        assert both.heard == [signal.SIGINT]


async def test_a_server_that_listens_to_sigterm_alone_hears_that(server: Server) -> None:
    shutdown = Shutdown(drain=0.01)
    with shutdown.watch():
        os.kill(os.getpid(), signal.SIGTERM)
        assert await shutdown.within(5)
        assert server.heard == [signal.SIGTERM]


@pytest.mark.parametrize(("version", "ends"), [("1.1", True), ("1.0", True), ("2", False)])
async def test_each_answer_of_a_process_that_drains_ends_its_connection(version: str, ends: bool) -> None:
    """But for HTTP/2, which forbids the header and has GOAWAY."""
    shutdown = Shutdown(drain=30)

    async def answer(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def ask() -> bool:
        sent: list[Any] = []

        async def send(message: Message) -> None:
            sent.append(message)

        scope: Any = {"type": "http", "method": "GET", "path": "/health/live", "http_version": version}
        scope |= {"query_string": b"", "headers": []}
        await Edge(answer, shutdown=shutdown)(scope, _never, send)
        return (b"connection", b"close") in sent[0]["headers"]

    assert not await ask()
    shutdown.begin()
    assert await ask() == ends


async def _never() -> Any:
    raise AssertionError("nobody asks for the body")
