"""Receivers of requests, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_network
from typing import Any

from tenantry.kernel.outbound import Answer, OutboundClient

LOOPBACK = (ip_network("127.0.0.1/32"),)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Receiver:
    """A server on an ephemeral port of 127.0.0.1."""

    def __init__(self, answer: bytes | Handler, greeting: bytes) -> None:
        self._answer = answer
        self._greeting = greeting
        self.port = 0
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.connections: list[asyncio.Task[Any] | None] = []
        self.spoken_to = asyncio.Event()
        self.sni: list[str | None] = []

    def url(self, path: str = "/", *, scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(asyncio.current_task())
        writer.write(self._greeting)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await self.take(reader)
                if isinstance(self._answer, bytes):
                    writer.write(self._answer)
                    await writer.drain()
                else:
                    await self._answer(reader, writer)
        writer.close()

    async def take(self, reader: asyncio.StreamReader) -> None:
        first = await reader.readexactly(1)
        self.spoken_to.set()
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode("ascii")
        length = next(line for line in head.lower().split("\r\n") if line.startswith("content-length:"))
        self.heads.append(head)
        self.bodies.append(await reader.readexactly(int(length.partition(":")[2])))


@contextlib.asynccontextmanager
async def receiving(
    answer: bytes | Handler, *, tls: ssl.SSLContext | None = None, greeting: bytes = b""
) -> AsyncIterator[Receiver]:
    """A connection that is still open at the end fails the test: the client is to be closed before."""
    receiver = Receiver(answer, greeting)
    server = await asyncio.start_server(receiver, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    if tls is not None:
        tls.sni_callback = lambda _socket, name, _context: receiver.sni.append(name)
    try:
        yield receiver
    finally:
        server.close()
        async with asyncio.timeout(5):
            await asyncio.gather(*(task for task in receiver.connections if task is not None))


def begin_with(start: bytes, forever: bytes = b"") -> Handler:
    """Answers with `start`, and then with `forever` again and again; with nothing, where that is empty."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while forever:
            writer.write(forever)
            await writer.drain()
        await reader.readexactly(1)

    return answer


def local(*, timeout: float = 5, most: int = 1000) -> OutboundClient:
    return OutboundClient(timeout=timeout, besides=LOOPBACK, most=most)


async def post(client: OutboundClient, url: str) -> Answer:
    return await client.request("POST", url, headers={}, content=b"{}")
