"""A client of server-sent events, inside the test's process: httpx's transport keeps an answer until it has ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tenantry.kernel.http import edge
from tests.world import World

__all__ = ("Event", "Listener", "listen", "listen_at", "parse", "scope_at")


@dataclass
class Event:
    """What stands between two blank lines."""

    kind: str = ""
    id: str = ""
    data: Any = None
    comment: str = ""
    retry: str = ""


def parse(block: str) -> Event:
    """WHATWG HTML §9.2.6, as far as our streams go."""
    event, data = Event(), []
    for line in block.splitlines():
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "":
                event.comment = value
            case "event":
                event.kind = value
            case "data":
                data.append(value)
            case "id":
                event.id = value
            case "retry":
                event.retry = value
            case _:
                raise AssertionError(f"not a field of an event: {line!r}")
    if data:
        event.data = json.loads("\n".join(data))
    return event


@dataclass
class Listener:
    """One request for a stream, and what has come of it."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    reads: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared, the client takes nothing more from its socket."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False
    """The server has ended the answer."""
    task: asyncio.Task[None] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.reads.set()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.reads.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            self.answered.set()
            return
        self.body += message.get("body", b"")
        self.over = not message.get("more_body", False)
        if self.over:
            # What a server says to whoever still listens to the client after the answer (ASGI, `http.disconnect`).
            self.gone.set()
        self.arrived.set()

    async def next(self, seconds: float = 10.0) -> Event | None:
        """The next block, or None when the stream is over."""
        async with asyncio.timeout(seconds):
            while b"\r\n\r\n" not in self.body:
                if self.over:
                    assert self.body == b"", "half an event"
                    return None
                self.arrived.clear()
                await self.arrived.wait()
        block, _, self.body = self.body.partition(b"\r\n\r\n")
        return parse(block.decode())

    async def event(self) -> Event:
        """The next event; comments and the like are passed over."""
        while (found := await self.next()) is not None:
            if found.kind:
                return found
        raise AssertionError("the stream is over")

    async def rest(self) -> list[Event]:
        """All events until the server ends the stream."""
        found = []
        while (event := await self.next()) is not None:
            if event.kind:
                found.append(event)
        return found

    async def ended(self, seconds: float = 5.0) -> None:
        """Wait until nobody works on the request any more."""
        async with asyncio.timeout(seconds):
            await self.task


@asynccontextmanager
async def listen(
    api: World, rollout_id: object, *, token: str = "", last_id: str | None = None
) -> AsyncIterator[Listener]:
    """Ask for the events of a rollout, as the operator unless a token is given."""
    path = f"/platform/rollouts/{rollout_id}/events"
    async with listen_at(edge(api.app), path, token=token or api.operator.access_token, last_id=last_id) as listener:
        yield listener


@asynccontextmanager
async def listen_at(served: Any, path: str, *, token: str, last_id: str | None = None) -> AsyncIterator[Listener]:
    """Ask an ASGI application for the events at an address."""
    scope = scope_at(path, token=token, last_id=last_id)
    listener = Listener()
    listener.task = asyncio.create_task(served(scope, listener.receive, listener.send))
    try:
        async with asyncio.timeout(10):
            await listener.answered.wait()
        yield listener
    finally:
        listener.reads.set()
        listener.gone.set()
        await listener.ended()


def scope_at(path: str, *, token: str, last_id: str | None = None) -> Any:
    """The request, as an ASGI application gets it."""
    headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {token}".encode())]
    if last_id is not None:
        headers.append((b"last-event-id", last_id.encode()))
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 80),
    }
