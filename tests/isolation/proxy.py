"""A wire between a client and PostgreSQL, on which the server's answers can be held back and which can be cut."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

__all__ = ("Proxy", "open_proxy")

_Writers = tuple[asyncio.StreamWriter, asyncio.StreamWriter]


class Proxy:
    """Copies octets both ways.

    After `hold`, the first message of a client that the predicate picks goes through, and what the server says to
    that client from then on waits until `release`. `held` is set once there is such an answer.
    """

    def __init__(self, host: str, port: int) -> None:
        self.held = asyncio.Event()
        self.connections = 0
        self._target = (host, port)
        self._picks: Callable[[bytes], bool] | None = None
        self._released = asyncio.Event()
        self._pairs: set[_Writers] = set()

    def hold(self, picks: Callable[[bytes], bool]) -> None:
        self._picks = picks
        self.held.clear()
        self._released.clear()

    def release(self) -> None:
        self._picks = None
        self._released.set()

    def cut(self) -> None:
        """Drop every connection on both sides, without a farewell."""
        for pair in self._pairs:
            for writer in pair:
                writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, server_writer)
        self._pairs.add(pair)
        picked = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._up(reader, server_writer, picked))
                group.create_task(self._down(server_reader, writer, picked))
        finally:
            self._pairs.discard(pair)
            for each in pair:
                each.transport.abort()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, picked: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self._picks is not None and self._picks(data):
                    self._picks = None
                    picked.set()
                writer.write(data)
                await writer.drain()
            # The client has gone: the server is told, as a kernel that closes a socket would.
            writer.close()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, picked: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if picked.is_set():
                    self.held.set()
                    await self._released.wait()
                    picked.clear()
                writer.write(data)
                await writer.drain()
            writer.close()


@asynccontextmanager
async def open_proxy(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before the server of `url`, and the address by which the same database is reached through it."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    proxy = Proxy(parts.hostname, parts.port or 5432)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    netloc = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}"
    try:
        yield proxy, urlunsplit((parts.scheme, netloc, parts.path, parts.query, ""))
    finally:
        proxy.release()
        proxy.cut()
        server.close()
        await server.wait_closed()
