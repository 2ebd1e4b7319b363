"""A wire to Redis that can be made to hang or be cut, as a server or a network does, without anything being killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

__all__ = ("Wire", "open_wire")


class Wire:
    """Where clients connect to. What they send is passed on unless it `hangs` or `is_cut`."""

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self.is_cut = False
        self.messages = 0
        """Reads of what clients have sent; several calls may come in one."""
        self.url = ""

    def hang(self) -> None:
        """Take what comes, connections too, and answer nothing."""
        self._flows.clear()

    def cut(self) -> None:
        """End all connections, and take no more."""
        self.is_cut = True
        for writer in self._writers:
            writer.close()

    def mend(self) -> None:
        """Be a good wire again; what was held up is passed on."""
        self.is_cut = False
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut:
            writer.close()
            return
        back_reader, back_writer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        self._writers |= {writer, back_writer}
        for source, target in ((reader, back_writer), (back_reader, writer)):
            task = asyncio.create_task(self._pass_on(source, target, counted=source is reader))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, counted: bool) -> None:
        try:
            while data := await source.read(1 << 16):
                self.messages += counted
                await self._flows.wait()
                target.write(data)
                await target.drain()
        except OSError:
            pass
        finally:
            target.close()
            self._writers.discard(target)

    async def close(self) -> None:
        self._flows.set()
        for writer in list(self._writers):
            writer.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def open_wire(upstream: str) -> AsyncIterator[Wire]:
    """A wire to the server at that `redis://` address."""
    wire = Wire(upstream)
    server = await asyncio.start_server(wire._serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    parts = urlsplit(upstream)
    password = f":{parts.password}@" if parts.password else ""
    wire.url = f"redis://{password}127.0.0.1:{port}{parts.path}"
    try:
        yield wire
    finally:
        server.close()
        await wire.close()
        await server.wait_closed()
