from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import pytest

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
