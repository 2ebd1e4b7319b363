"""One connection to Redis on which all small calls of a process travel together.

A call by way of redis-py's client takes a connection out of the pool, two timers and 100 µs of CPU, which is 7 % of a
request; on a connection of its own it takes half of that, and calls that come up together share one message each way.
Its answers come in order, so one call that hangs would hold up all others: a time-out ends the whole message, and
before that, whoever comes while an answer is overdue is told at once that Redis is away.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis.exceptions import (
    ClusterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.connection import AbstractConnection

    from tenantry.kernel.breaker import Breaker

__all__ = ("Line", "RedisAway", "Script")

_AWAY = (ClusterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError)
"""Answers of a Redis that is there, and of no use."""

_IDLE = 1.0
"""Seconds after which the connection is looked at before it is used: the server may have closed it meanwhile."""


class RedisAway(Exception):  # noqa: N818
    """There is no answer. `was_sent` says whether Redis may have done it nevertheless."""

    def __init__(self, *, was_sent: bool) -> None:
        super().__init__("Redis does not answer")
        self.was_sent = was_sent


class Script:
    """A Lua script with its digest (SHA-1, by which EVALSHA names it)."""

    __slots__ = ("sha", "source")

    def __init__(self, redis: Redis, source: str) -> None:
        self.source = source
        self.sha: str = redis.register_script(source).sha


class _Call:
    __slots__ = ("answer", "command", "script")

    def __init__(
        self, command: tuple[Any, ...], answer: asyncio.Future[Any] | None, script: Script | None = None
    ) -> None:
        self.command = command
        self.answer = answer
        """None where nobody waits for it."""
        self.script = script

    def reply(self, value: Any) -> None:
        # Not as the future's exception: whoever was to have it may be gone, and asyncio would complain of it.
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(value)


class Line:
    """Calls on one connection, in the order in which they were made. Belongs to one event loop.

    Args:
        redis: says where Redis is and how it is logged in to.
        breaker: of Redis; while it is open, nothing is sent.
        timeout: seconds that one message, out and back, may take.
        overdue: seconds after which an answer is late: calls that come then are not kept waiting for it.
    """

    def __init__(self, redis: Redis, breaker: Breaker, *, timeout: float, overdue: float = 0.05) -> None:
        self._redis = redis
        self._breaker = breaker
        self._timeout = timeout
        self._overdue = min(overdue, timeout)
        self._connection: AbstractConnection | None = None
        self._used_at = 0.0
        self._waiting: list[_Call] = []
        self._worker: asyncio.Task[None] | None = None
        self._is_late = False

    @property
    def is_open(self) -> bool:
        """Whether it makes sense to ask."""
        return self._breaker.is_closed and not self._is_late

    def tell(self, *command: Any) -> bool:
        """Send a command whose answer is of no interest; False where it was not even sent."""
        if not self.is_open:
            return False
        self._put(_Call(command, None))
        return True

    async def ask(self, *command: Any) -> Any:
        """Send a command, and return what Redis says.

        Raises:
            RedisAway: nothing, in time.
            redis.exceptions.ResponseError: that it cannot.
        """
        return await self._answer(command, None)

    async def run(self, script: Script, keys: list[str], *values: Any) -> Any:
        """As `ask`, of a script. Redis gets to know it when it does not, after a restart for one.

        Raises:
            RedisAway, redis.exceptions.ResponseError: as `ask`.
        """
        return await self._answer(("EVALSHA", script.sha, len(keys), *keys, *values), script)

    def send(self, *command: Any) -> asyncio.Future[Any]:
        """Send a command at once; the answer comes as the future's result, and where it is an error, that is the result
        as well: nobody has to wait for it."""
        return self._begin(command, None)

    def _begin(self, command: tuple[Any, ...], script: Script | None) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.is_open:
            self._put(_Call(command, answer, script))
        else:
            answer.set_result(RedisAway(was_sent=False))
        return answer

    async def _answer(self, command: tuple[Any, ...], script: Script | None) -> Any:
        if not self.is_open:
            raise RedisAway(was_sent=False)
        found = await self._begin(command, script)
        if isinstance(found, Exception):
            raise found
        return found

    def _put(self, call: _Call) -> None:
        self._waiting.append(call)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name="redis-line")

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                calls, self._waiting = self._waiting, []
                late = loop.call_later(self._overdue, self._be_late)
                try:
                    calls = await self._send(calls)
                finally:
                    late.cancel()
                    self._is_late = False
                # Before what has come meanwhile: scripts that Redis did not know.
                self._waiting[:0] = calls
        finally:
            self._worker = None

    def _be_late(self) -> None:
        self._is_late = True

    async def _send(self, calls: list[_Call]) -> list[_Call]:
        """Send calls as one message, and hand out the answers; returns what is to be sent once more."""
        answers: list[Any] = []
        was_sent = False
        try:
            async with asyncio.timeout(self._timeout):
                connection = await self._connect()
                packed = connection.pack_commands([call.command for call in calls])
                was_sent = True
                await connection.send_packed_command(packed, check_health=False)
                for _ in calls:
                    # One after the other: those that have come count, whatever becomes of the rest.
                    answers.append(await _read(connection))  # noqa: PERF401
        except Exception as error:  # noqa: BLE001, RUF100 - somebody waits for each of these calls
            await self._hang_up()
            self._breaker.failed(error)
            for call, found in zip(calls, answers, strict=False):
                call.reply(found)
            for call in calls[len(answers) :]:
                call.reply(RedisAway(was_sent=was_sent))
            if not self._breaker.is_closed:
                waiting, self._waiting = self._waiting, []
                for call in waiting:
                    call.reply(RedisAway(was_sent=False))
            return []
        self._used_at = asyncio.get_running_loop().time()
        return self._hand_out(calls, answers)

    def _hand_out(self, calls: list[_Call], answers: list[Any]) -> list[_Call]:
        again: list[_Call] = []
        away: Exception | None = None
        for call, found in zip(calls, answers, strict=True):
            if isinstance(found, _AWAY):
                away = found
                call.reply(RedisAway(was_sent=False))
            elif isinstance(found, NoScriptError) and call.script is not None:
                # With its source, which Redis then remembers; and without a third time.
                _, _, *arguments = call.command
                again.append(_Call(("EVAL", call.script.source, *arguments), call.answer))
            else:
                call.reply(found)
        if away is None:
            self._breaker.succeeded()
        else:
            self._breaker.failed(away)
        return again

    async def _connect(self) -> AbstractConnection:
        now = asyncio.get_running_loop().time()
        if self._connection is not None and now - self._used_at > _IDLE and await self._is_lost(self._connection):
            await self._hang_up()
        if self._connection is None:
            pool = self._redis.connection_pool
            connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
            # Ours is around the whole message; redis-py would set a timer for the way out and one for each answer.
            connection.socket_timeout = None
            try:
                await connection.connect()  # type: ignore[no-untyped-call]
            except BaseException:
                # Cut off in the middle of its greetings it would stay open.
                await connection.disconnect(nowait=True)
                raise
            self._connection = connection
        return self._connection

    @staticmethod
    async def _is_lost(connection: AbstractConnection) -> bool:
        try:
            # Nobody has asked for anything: what there is to read is a farewell.
            return bool(await connection.can_read_destructive())  # type: ignore[no-untyped-call]
        except (RedisError, OSError):
            return True

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Wait for what is under way, and end the connection."""
        while self._worker is not None:
            await asyncio.wait([self._worker])
        await self._hang_up()


async def _read(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response(disconnect_on_error=False)
    except ResponseError as error:
        return error
