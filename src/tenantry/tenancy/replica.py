"""Reads on a streaming replica, which sees all that was committed before the read, or is not asked.

A replica is behind, by milliseconds or by minutes, and nothing that a process remembers of its own writes tells it
what others have written: the log-in that was revoked a moment ago, say, in another process. So nothing is remembered.
While the transaction on the replica begins, the primary says how far its log is (one small answer for all requests that
ask at the same time), and the replica whether it has replayed that far. Where it has not, cannot be asked, or is no
replica of that primary, the read is the primary's, without an error. Decision 41 says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import asyncpg
import structlog
from prometheus_client import Counter
from sqlalchemy.exc import TimeoutError as PoolTimeout

from tenantry.tenancy.bulkheads import ProcessBusyException, TenantBusyException
from tenantry.tenancy.connection import ScopedConnection
from tenantry.tenancy.database import LOST
from tenantry.tenancy.scope import ScopeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestar.types import HTTPScope, Message, Send

    from tenantry.tenancy.database import Database, Transaction
    from tenantry.tenancy.scope import Scope

__all__ = ("Positions", "Replica", "ReplicaReads", "WithheldAnswer", "reads_only")

# What is acknowledged has been flushed, and so has whatever anybody has seen; what is not flushed yet, no replica can
# have. Where commits are acknowledged before that, only the end of what was written says it all.
_POSITION = """
SELECT CASE current_setting('synchronous_commit') WHEN 'off' THEN pg_current_wal_insert_lsn()
       ELSE pg_current_wal_flush_lsn() END::text AS position,
       (SELECT system_identifier::text FROM pg_control_system()) AS cluster
"""
_HAS_REPLAYED = "SELECT pg_is_in_recovery() AND pg_last_wal_replay_lsn() >= $1::text::pg_lsn"
_CLUSTER = "SELECT system_identifier::text FROM pg_control_system()"

_KNOCK_EVERY = 1.0
"""Seconds between two looks at a replica that is away or behind; no request waits for it meanwhile."""
_BEGIN_LIMIT = 1.0
"""Seconds that a replica may take to begin a transaction, should its machine have gone without a word."""
_STEP = 0.002
"""Seconds between two questions whether it has caught up."""

_reads = Counter("tenantry_database_replica_reads", "Transactions that were a replica's to read.", ("outcome",))

_log = structlog.get_logger(__name__)


class Positions:
    """How far the primary's log is, asked on a connection of its own."""

    def __init__(self, url: str, *, connect_timeout: float = 5.0) -> None:
        """`url` leads to the primary itself, not to a pooler of transactions."""
        self._url = url
        self._connect_timeout = connect_timeout
        self._asked = asyncio.Event()
        self._answer: asyncio.Future[tuple[str, str] | None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._work(), name="wal-positions")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def ask(self) -> asyncio.Future[tuple[str, str] | None]:
        """What will be the position and the cluster's identifier, read after this call; None if nobody answers.

        Others wait for the same future: wait for it, but do not have it cancelled.
        """
        if self._answer is None:
            self._answer = asyncio.get_running_loop().create_future()
            self._asked.set()
        return self._answer

    async def _work(self) -> None:
        connection: asyncpg.Connection[Any] | None = None
        try:
            while True:
                await self._asked.wait()
                self._asked.clear()
                found = None
                # Whoever asks from here on may know of something newer: the next question is theirs.
                answer, self._answer = self._answer, None
                try:
                    if connection is None or connection.is_closed():
                        connection = await asyncpg.connect(
                            self._url,
                            connection_class=ScopedConnection,
                            timeout=self._connect_timeout,
                            command_timeout=_BEGIN_LIMIT,
                            server_settings={"application_name": "tenantry-positions"},
                        )
                    record = await connection.fetchrow(_POSITION)
                    found = (record["position"], record["cluster"]) if record is not None else None
                except LOST as error:
                    _log.warning("the primary does not say how far its log is", error=repr(error))
                    if connection is not None:
                        connection.terminate()
                        connection = None
                finally:
                    if answer is not None and not answer.done():
                        answer.set_result(found)
        finally:
            if connection is not None:
                connection.terminate()


class Replica:
    """A replica's pool, and whether it is worth asking."""

    def __init__(
        self,
        primary: Database,
        database: Database,
        positions: Positions,
        *,
        scope: Scope,
        wait: float = 0.05,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`scope` is whom it is looked at as, from time to time; `wait` the seconds that a read lets it catch up."""
        self.primary = primary
        self.database = database
        self._positions = positions
        self._scope = scope
        self._wait = wait
        self._clock = clock
        self._shut = asyncio.Event()
        self._shut.set()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether reads go there."""
        return not self._shut.is_set()

    async def start(self) -> None:
        """Begin to look at it; until it was seen to be well, reads are the primary's."""
        await self._positions.start()
        self._task = asyncio.create_task(self._follow(), name="replica")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._positions.stop()
        await self.database.close()

    async def _follow(self) -> None:
        said: str | None = None
        while True:
            await self._shut.wait()
            try:
                transaction, outcome = await self._try(self._scope)
            except Exception as error:
                # Whatever it is: whoever stops looking never goes back to the replica.
                transaction, outcome = None, repr(error)
            if transaction is not None:
                await transaction.close()
                self._shut.clear()
                _log.info("reads go to the replica")
                said = None
                continue
            if outcome != said:
                _log.warning("reads go to the primary", replica=outcome)
                said = outcome
            await asyncio.sleep(_KNOCK_EVERY)

    async def begin(self, scope: Scope) -> Transaction | None:
        """A transaction on the replica that sees all that was committed before this call; None if it is not to be had.

        Raises nothing that the replica is to blame for.
        """
        if self._shut.is_set():
            _reads.labels("shut").inc()
            return None
        transaction, outcome = await self._try(scope)
        _reads.labels(outcome).inc()
        if transaction is None and outcome != "busy":
            self._shut.set()
        return transaction

    async def _try(self, scope: Scope) -> tuple[Transaction | None, str]:
        answer = self._positions.ask()
        try:
            async with asyncio.timeout(_BEGIN_LIMIT):
                transaction = await self.database.begin(scope)
        except ScopeError:
            # It has not heard of the tenant's role: the primary knows whether there is such a one.
            return None, "behind"
        except (TenantBusyException, ProcessBusyException, PoolTimeout):
            # Nothing is wrong with it: others may go on reading there.
            return None, "busy"
        except LOST as error:
            _log.debug("the replica is away", error=repr(error))
            return None, "away"
        outcome = "away"
        try:
            async with asyncio.timeout(_BEGIN_LIMIT + self._wait):
                outcome = await self._caught_up(transaction.driver, answer)
        except LOST as error:
            _log.debug("the replica is away", error=repr(error))
        finally:
            if outcome != "replica":
                await transaction.close(failed=outcome == "away")
        return (transaction, outcome) if outcome == "replica" else (None, outcome)

    async def _caught_up(self, connection: ScopedConnection, answer: asyncio.Future[tuple[str, str] | None]) -> str:
        deadline = self._clock() + self._wait
        await asyncio.wait({answer}, timeout=self._wait)
        found = answer.result() if answer.done() else None
        if found is None:
            return "unanswered"
        position, cluster = found
        # Once for each connection: behind one address there may be several servers.
        if connection.cluster is None:
            connection.cluster = await connection.fetchval(_CLUSTER)
        if connection.cluster != cluster:
            return "stranger"
        while not await connection.fetchval(_HAS_REPLAYED, position):
            if self._clock() >= deadline:
                return "behind"
            await asyncio.sleep(_STEP)
        return "replica"


class ReplicaReads:
    """Stands where a `Database` does, for one request that only reads."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._lost: list[Callable[[], bool]] = []

    async def begin(self, scope: Scope) -> Transaction:
        """As `Database.begin`, on the replica if it can be had."""
        transaction = await self._replica.begin(scope)
        if transaction is None:
            return await self._replica.primary.begin(scope)
        self._lost.append(transaction.driver.is_closed)
        return transaction

    def has_failed(self, status: int) -> bool:
        """Whether an answer of that status is the replica's fault: then the primary may know better.

        That is, whether its connection has gone; or a statement had to make way for what the replica was to replay,
        which is a conflict (SQLSTATE 40001), as no reading transaction of the primary's has.
        """
        return bool(self._lost) and (status == 409 or (status >= 500 and any(lost() for lost in self._lost)))


def reads_only(scope: HTTPScope) -> bool:
    """Whether a request may be the replica's: a GET or HEAD whose answer ends, of a route that does not refuse."""
    opt = scope["route_handler"].opt
    return scope["method"] in {"GET", "HEAD"} and not opt.get("endless") and opt.get("replica", True)


class WithheldAnswer:
    """An ASGI `send` that keeps the answer to itself if it is the replica's fault."""

    def __init__(self, send: Send, reads: ReplicaReads) -> None:
        self._send = send
        self._reads = reads
        self.is_withheld = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and self._reads.has_failed(message["status"]):
            self.is_withheld = True
        if not self.is_withheld:
            await self._send(message)
