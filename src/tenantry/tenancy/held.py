"""Answers that are held back until what they say is committed.

Most requests commit before their answer is even composed as messages (`tenantry.tenancy.request.provide_session`). One
that has to keep its own answer, or to say what the resource looks like afterwards, needs the answer first and the
commit second: its messages are held here, what belongs into the same transaction is done with them, then comes the
commit, and then they are sent. A commit that fails is still an error answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenantry.kernel.http.problem import send_problem

if TYPE_CHECKING:
    from litestar.types import ASGIApp, HTTPScope, Message, Receive, Send

    from tenantry.tenancy.request import TenantRequest

__all__ = ("HeldAnswer", "answer_after_commit")


class HeldAnswer:
    """An answer that nobody has been given yet. It may be changed until it is sent."""

    __slots__ = ("_body", "headers", "status")

    def __init__(self) -> None:
        self.status = 0
        """0 until the answer has begun."""
        self.headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []

    @property
    def body(self) -> bytes:
        return b"".join(self._body)

    @property
    def is_good(self) -> bool:
        """Whether it says that something was done."""
        return 0 < self.status < 400

    async def take(self, message: Message) -> None:
        """An ASGI `send` that keeps."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message["headers"])
        elif message["type"] == "http.response.body":
            self._body.append(message["body"])

    async def send(self, send: Send) -> None:
        start: Any = {"type": "http.response.start", "status": self.status, "headers": self.headers}
        await send(start)
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


async def answer_after_commit(
    request: TenantRequest, app: ASGIApp, scope: HTTPScope, receive: Receive, send: Send
) -> None:
    """Run `app`, do what is to be done with its answer, commit, and send it; a refusal commits nothing."""
    answer = HeldAnswer()
    await app(scope, receive, answer.take)
    if answer.is_good and request.is_held:
        try:
            for finish in request.finishing:
                await finish(answer)
            await request.settle()
        except Exception as error:
            # Not raised: to Litestar the answer has begun, and it would make a 500 of whatever this is.
            await request.close()
            await send_problem(scope, send, error)
            return
    # A slow reader of the answer holds no connection.
    await request.close()
    if answer.status:
        await answer.send(send)
