"""Carrying out a rollout: one executor at a time, any number of onlookers, who take over when it is gone."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import structlog

from tenantry.platform.rollouts.execution import Execution
from tenantry.platform.rollouts.ledger import Ledger, Progress, read_progress
from tenantry.platform.rollouts.migration import is_lost, raise_cancelled
from tenantry.platform.rollouts.planning import older_revisions
from tenantry.tenancy.connection import DriverConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from uuid import UUID

__all__ = ("EXECUTOR_LOCK", "Progress", "RolloutRunner")

EXECUTOR_LOCK = 0x7E4A_5EEE
"""The executor's advisory lock; any number that nothing else takes will do."""

_log = structlog.get_logger(__name__)


class RolloutRunner:
    """Runs rollouts as the owner.

    The executor holds an advisory lock in a transaction that is open for as long as it works, on a connection of its
    own: it ends with the process, however that ends. The transaction has neither an id nor a snapshot, so it keeps
    nothing from being vacuumed.
    """

    def __init__(
        self,
        owner_url: str,
        *,
        poll_interval: float = 0.25,
        settle: float = 10.0,
        backoff: float = 0.5,
        patience: float = 60.0,
    ) -> None:
        """Times are in seconds.

        Args:
            owner_url: where `tenantry_owner` logs in.
            poll_interval: how often to look whether it was cancelled, and how far the executor is.
            settle: how long, at its end, to wait for tenants that are being made.
            backoff: pause before a tenant that locks kept out is tried again; doubled each time.
            patience: how long to wait for a database that is away.
        """
        self._url = owner_url
        self._poll_interval = poll_interval
        self._settle = settle
        self._backoff = backoff
        self._patience = patience
        self._execution: Execution | None = None

    def stop(self) -> None:
        """Begin no further tenant, and let `run` return; where somebody else carries it out, nothing happens."""
        if self._execution is not None:
            self._execution.stop()

    async def run(
        self, rollout_id: UUID, on_progress: Callable[[Progress], None] | None = None, *, wait: bool = True
    ) -> Progress | None:
        """Carry the rollout out until it has ended, or watch whoever does; what has become of it.

        Args:
            rollout_id: which.
            on_progress: is told how far it is, whoever carries it out.
            wait: watch; else None is returned at once where somebody else carries it out.

        Raises:
            LookupError: there is no such rollout, or its target is another release's.
            OSError, asyncpg.PostgresError, asyncpg.InterfaceError: the database is not there, or was away for longer
                than `patience`. The rollout stays `running`, and whoever runs it next goes on.
        """
        loop = asyncio.get_running_loop()
        contact: float | None = None
        last: Progress | None = None

        def tell(progress: Progress) -> None:
            nonlocal contact, last
            contact = loop.time()
            if on_progress is not None and progress != last:
                on_progress(progress)
            last = progress

        while True:
            try:
                return await self._attempt(rollout_id, tell, wait=wait)
            except Exception as error:
                raise_cancelled(error)
                if not is_lost(error) or contact is None or loop.time() - contact > self._patience:
                    raise
                _log.warning("rollout lost the database", rollout=str(rollout_id), error=repr(error))
                await asyncio.sleep(self._poll_interval)

    async def _attempt(self, rollout_id: UUID, tell: Callable[[Progress], None], *, wait: bool) -> Progress | None:
        async with self.connect() as connection:
            while True:
                await connection.execute("BEGIN")
                if await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", EXECUTOR_LOCK):
                    ended = await self._execute(connection, rollout_id, tell)
                    await connection.execute("ROLLBACK")
                    return ended
                await connection.execute("ROLLBACK")
                if not wait:
                    return None
                progress = await _known(connection, rollout_id)
                tell(progress)
                if progress.status != "running":
                    return progress
                await asyncio.sleep(self._poll_interval)

    async def _execute(self, lock: DriverConnection, rollout_id: UUID, tell: Callable[[Progress], None]) -> Progress:
        async with self.connect() as own:
            progress = await _known(own, rollout_id)
            tell(progress)
            if progress.status != "running":
                return progress
            self._execution = Execution(
                rollout_id,
                lock=lock,
                ledger=Ledger(own, rollout_id, older_revisions(progress.target)),
                connect=self.connect,
                owner_url=self._url,
                poll_interval=self._poll_interval,
                settle=self._settle,
                backoff=self._backoff,
                patience=self._patience,
                tell=tell,
            )
            try:
                return await self._execution.run()
            finally:
                self._execution = None

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[DriverConnection]:
        """A connection of the owner's, without a limit on how long its transaction idles."""
        connection: DriverConnection = await asyncpg.connect(
            self._url,
            connection_class=DriverConnection,
            timeout=10,
            server_settings={"application_name": "tenantry-rollout", "idle_in_transaction_session_timeout": "0"},
        )
        try:
            yield connection
        finally:
            # Whatever state it is in, the server rolls back, and gives the lock to others. Nobody waits for it: its
            # process takes 30 ms to forget what it knew of a thousand schemas, one worker after the other.
            connection.terminate()


async def _known(connection: DriverConnection, rollout_id: UUID) -> Progress:
    found = await read_progress(connection, rollout_id)
    if found is None:
        raise LookupError(f"there is no rollout {rollout_id}")
    return found
