"""A balancer of connections, as a Service of Kubernetes is one: it knows nothing of what is sent through them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

__all__ = ("Balancer",)


class Balancer:
    """Each new connection is passed on to the next of the processes behind it, whole and unread.

    A process that is taken out gets no new ones. Those that it has stay its own, for as long as the two ends like: what
    is sent on them still reaches it, whether it is about to end or not.
    """

    def __init__(self) -> None:
        self.failures: list[str] = []
        """Processes that were not there, though they should have been."""
        self._ports: list[int] = []
        self._turn = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Balancer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def add(self, port: int) -> None:
        self._ports.append(port)

    def remove(self, port: int) -> None:
        self._ports.remove(port)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            port = self._ports[next(self._turn) % len(self._ports)]
            try:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError as error:
                self.failures.append(f"{port}: {error!r}")
                return
            # Whichever end is done first: nobody here goes on after half of a conversation.
            passing = [asyncio.create_task(_pass(reader, far_writer)), asyncio.create_task(_pass(far_reader, writer))]
            try:
                await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in passing:
                    each.cancel()
                await asyncio.gather(*passing, return_exceptions=True)
                await _close(far_writer)
        finally:
            await _close(writer)
            self._tasks.discard(task)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
