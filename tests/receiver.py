"""A receiver of webhooks on loopback: it keeps what it gets, and answers as it is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h11
import msgspec

__all__ = ("Received", "Receiver", "open_receiver")


@dataclass(frozen=True)
class Received:
    """One request."""

    target: str
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return msgspec.json.decode(self.content)


@dataclass
class Receiver:
    """`answer` says the status, headers and body of each answer; by default 204."""

    url: str
    received: list[Received] = field(default_factory=list)
    answer: Callable[[Received], tuple[int, dict[str, str], bytes]] = lambda _: (204, {}, b"")

    def fail(self, status: int = 500, **headers: str) -> None:
        self.answer = lambda _: (status, {name.replace("_", "-"): value for name, value in headers.items()}, b"no")

    def succeed(self) -> None:
        self.answer = lambda _: (204, {}, b"")

    @property
    def names(self) -> list[str]:
        return [each.body["type"] for each in self.received]

    @property
    def ids(self) -> list[str]:
        return [each.headers["webhook-id"] for each in self.received]


@asynccontextmanager
async def open_receiver() -> AsyncIterator[Receiver]:
    """A server that listens until the block ends."""
    receiver = Receiver("")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            # Whoever has read enough goes away in the middle of an answer.
            with contextlib.suppress(ConnectionError):
                while await _exchange(connection, reader, writer, receiver):
                    connection.start_next_cycle()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks"
    try:
        yield receiver
    finally:
        server.close()


async def _exchange(
    connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, receiver: Receiver
) -> bool:
    """Answer one request; whether there may be another."""
    request: h11.Request | None = None
    content = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65_536))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            content += event.data
        elif isinstance(event, h11.EndOfMessage):
            break
        else:
            return False
    assert request is not None
    headers = {name.decode(): value.decode() for name, value in request.headers}
    received = Received(request.target.decode(), headers, bytes(content))
    receiver.received.append(received)
    status, extra, body = receiver.answer(received)
    sent = [(name.encode("ascii"), value.encode("latin-1")) for name, value in extra.items()]
    if status != 204:
        sent.append((b"content-length", b"%d" % len(body)))
    writer.write(connection.send(h11.Response(status_code=status, headers=sent)) or b"")
    if body:
        writer.write(connection.send(h11.Data(data=body)) or b"")
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    await writer.drain()
    return connection.our_state is h11.DONE and connection.their_state is h11.DONE
