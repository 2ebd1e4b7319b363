"""The provisioner: the one process with the owner's rights, which carries out what the others write down."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from typing import TYPE_CHECKING, Any, cast

import asyncpg
import structlog
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError

from tenantry.platform.provisioning.models import Operation
from tenantry.platform.provisioning.operations import OPERATION_CHANNEL, OperationFailed, Work
from tenantry.tenancy.connection import DriverConnection
from tenantry.tenancy.database import LOST, owner_engine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from tenantry.platform.provisioning.operations import Chore, OperationHandler, StepListener

__all__ = ("Provisioner",)

_ATTEMPTS = 5

_log = structlog.get_logger(__name__)


class Provisioner:
    """Takes pending operations, one transaction each.

    The row is locked for as long as the work runs, and the work, its outcome and the tenant's new state commit
    together. A provisioner that is killed leaves the operation pending and nothing else, and another takes it up; any
    number may run.
    """

    def __init__(
        self,
        owner_url: str,
        *,
        handlers: Sequence[OperationHandler],
        chores: Sequence[Chore] = (),
        concurrency: int = 2,
        poll_interval: float = 1.0,
        listener: StepListener | None = None,
        closers: Sequence[Callable[[], Awaitable[object]]] = (),
    ) -> None:
        """`poll_interval` is in seconds; `listener` is told of every step of every operation.

        `closers` are called when it ends: they close what the handlers hold.
        """
        self._url = owner_url
        # An operation may need a second connection for as long as it runs, and a chore one of its own.
        self._engine = owner_engine(owner_url, pool_size=2 * concurrency + len(chores))
        self._handlers = {handler.kind: handler for handler in handlers}
        self._chores = tuple(chores)
        self._concurrency = concurrency
        self._poll_interval = poll_interval
        self._listener = listener
        self._closers = tuple(closers)
        # Holds one token where somebody is to look for work. Not an event, which would wake all of them for one
        # operation: those who find nothing would be in the way of the one who does.
        self._bell: asyncio.Queue[None] = asyncio.Queue(maxsize=1)
        self._listening = False

    @property
    def is_listening(self) -> bool:
        """Whether it is connected to the database, and hears of new operations at once."""
        return self._listening

    async def run(self) -> None:
        """Work until cancelled; outlives every loss of the database."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen())
                for _ in range(self._concurrency):
                    group.create_task(self._work())
                for chore in self._chores:
                    group.create_task(self._do_chore(chore))
        finally:
            await self.close()

    async def work_off(self) -> int:
        """Carry out what is pending now, and return how many operations were taken."""
        taken = 0
        while await self._take_one():
            taken += 1
        return taken

    async def close(self) -> None:
        """Give back every connection; `run` does so by itself when it ends."""
        for close in self._closers:
            await close()
        await self._engine.dispose()

    async def _listen(self) -> None:
        while True:
            connection: asyncpg.Connection[Any] | None = None
            try:
                connection = await asyncpg.connect(self._url, connection_class=DriverConnection, timeout=5)
                lost = asyncio.Event()
                connection.add_termination_listener(lambda _, lost=lost: lost.set())
                await connection.add_listener(OPERATION_CHANNEL, lambda *_: self._ring())
                self._ring()
                self._listening = True
                await lost.wait()
            except LOST as error:
                _raise_if_cancelled(error)
                _log.warning("provisioner cannot listen", error=repr(error))
            finally:
                self._listening = False
                if connection is not None:
                    connection.terminate()
            await asyncio.sleep(self._poll_interval)

    def _ring(self) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._bell.put_nowait(None)

    async def _work(self) -> None:
        while True:
            if await self._outlive(self._take_one, "provisioner lost the database"):
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_interval):
                    await self._bell.get()

    async def _do_chore(self, chore: Chore) -> None:
        while True:
            if not await self._outlive(lambda: chore.run(self._engine), f"{chore.name} failed"):
                await asyncio.sleep(chore.interval)

    async def _outlive(self, work: Callable[[], Awaitable[bool]], complaint: str) -> bool:
        """Do a piece of work; a loss of the database costs that piece alone."""
        try:
            return await work()
        except Exception as error:
            _raise_if_cancelled(error)
            if isinstance(error, LOST):
                _log.warning(complaint, error=repr(error))
            else:
                # A bug of one chore must not end the process that makes everybody's schemas.
                _log.exception(complaint)
            return False

    async def _take_one(self) -> bool:
        async with self._engine.connect() as connection, connection.begin():
            row = (
                await connection.execute(
                    select(
                        Operation.id,
                        Operation.kind,
                        Operation.tenant_id,
                        Operation.payload,
                        Operation.requested_by,
                        Operation.attempts,
                    )
                    .where(
                        Operation.status == "pending",
                        Operation.not_before <= text("now()"),
                        # What a newer release has written down waits for a newer provisioner.
                        Operation.kind.in_(self._handlers),
                    )
                    .order_by(Operation.created_at)
                    .limit(1)
                    .with_for_update(skip_locked=True)
                )
            ).one_or_none()
            if row is None:
                return False
            # There may be more than the one that this one was woken for.
            self._ring()
            log = _log.bind(operation=str(row.id), kind=row.kind, tenant_id=str(row.tenant_id))
            handler = self._handlers[row.kind]
            work = await self._work_of(connection, row)
            await work.step("taken")
            try:
                async with connection.begin_nested():
                    result = await handler.run(work)
                    await work.session.flush()
                    # The handler's search_path is undone with a roll-back, not with a success.
                    await work.driver.execute("SET LOCAL search_path TO DEFAULT")
            except Exception as error:
                if work.driver.is_closed() or (isinstance(error, DBAPIError) and error.connection_invalidated):
                    # Nothing can be written down, and nothing is left of the attempt. Without a trace, which takes a
                    # second to write: meanwhile nobody else's work goes on, and who told us to stop waits.
                    log.warning("operation interrupted", error=repr(error))
                    raise
                # Whatever it is: a bug that got away would end the provisioner, again at each new start.
                if isinstance(error, OperationFailed):
                    log.warning("operation refused", reason=str(error))
                else:
                    log.exception("operation failed", attempt=row.attempts + 1)
                # After the log, which may take a second to write a trace: the pause begins now.
                await self._failed(connection, handler, row, error)
            else:
                await connection.execute(
                    update(Operation)
                    .where(Operation.id == row.id)
                    .values(
                        status="done",
                        attempts=row.attempts + 1,
                        payload={},
                        result=None if result is None else dict(result),
                        error=None,
                        finished_at=text("now()"),
                    )
                )
                await work.step("recorded")
                log.info("operation done")
        return True

    async def _work_of(self, connection: AsyncConnection, row: Any) -> Work:
        raw = await connection.get_raw_connection()
        return Work(
            operation_id=row.id,
            kind=row.kind,
            tenant_id=row.tenant_id,
            payload=row.payload,
            requested_by=row.requested_by,
            attempt=row.attempts + 1,
            connection=connection,
            engine=self._engine,
            driver=cast("DriverConnection", raw.driver_connection),
            listener=self._listener,
        )

    async def _failed(self, connection: AsyncConnection, handler: OperationHandler, row: Any, error: Exception) -> None:
        attempts = row.attempts + 1
        final = attempts >= _ATTEMPTS or isinstance(error, OperationFailed)
        # The first line alone: what follows may quote the statement, and with it somebody's data.
        said = str(error).splitlines()[0] if str(error) else ""
        explained = (said if isinstance(error, OperationFailed) else f"{type(error).__name__}: {said}")[:2000]
        values: dict[str, Any] = {
            "attempts": attempts,
            "error": explained,
            "status": "failed" if final else "pending",
            "not_before": datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2.0**attempts / 2),
        }
        if final:
            values |= {"payload": {}, "finished_at": text("now()")}
            work = await self._work_of(connection, row)
            await handler.give_up(work, explained)
            await work.session.flush()
        await connection.execute(update(Operation).where(Operation.id == row.id).values(**values))


def _raise_if_cancelled(error: Exception) -> None:
    """Raise what was meant, where the current task was cancelled.

    Cancelled in mid-work with the connection gone, the roll-back's error takes the cancellation's place, and a
    provisioner that was told to stop would go on.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError from error
