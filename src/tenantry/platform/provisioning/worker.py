"""The provisioner: the one process with the owner's rights, which carries out what the others write down."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import asyncpg
import structlog
from sqlalchemy import select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tenantry.kernel.feature import Owner
from tenantry.platform.provisioning.models import Operation
from tenantry.platform.provisioning.schema import create_schema
from tenantry.tenancy.connection import DriverConnection
from tenantry.tenancy.database import owner_engine
from tenantry.tenancy.migrations import head
from tenantry.tenancy.models import Tenant, schema_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tenantry.kernel.feature import ProvisionHook

__all__ = ("OPERATION_CHANNEL", "Provisioner")

OPERATION_CHANNEL = "tenantry_operation"
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
        hooks: Sequence[ProvisionHook],
        concurrency: int = 2,
        poll_interval: float = 1.0,
    ) -> None:
        """`hooks` give a new tenant its first rows, in this order; `poll_interval` is in seconds."""
        self._url = owner_url
        self._engine = owner_engine(owner_url, pool_size=concurrency)
        self._hooks = tuple(hooks)
        self._concurrency = concurrency
        self._poll_interval = poll_interval
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled; outlives every loss of the database."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen())
                for _ in range(self._concurrency):
                    group.create_task(self._work())
        finally:
            await self._engine.dispose()

    async def work_off(self) -> int:
        """Carry out what is pending now, and return how many operations were taken."""
        taken = 0
        while await self._take_one():
            taken += 1
        return taken

    async def close(self) -> None:
        await self._engine.dispose()

    async def _listen(self) -> None:
        while True:
            connection: asyncpg.Connection[Any] | None = None
            try:
                connection = await asyncpg.connect(self._url, connection_class=DriverConnection, timeout=5)
                lost = asyncio.Event()
                connection.add_termination_listener(lambda _, lost=lost: lost.set())
                await connection.add_listener(OPERATION_CHANNEL, lambda *_: self._wake.set())
                self._wake.set()
                await lost.wait()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                _log.warning("provisioner cannot listen", error=repr(error))
            finally:
                if connection is not None:
                    connection.terminate()
            await asyncio.sleep(self._poll_interval)

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            try:
                if await self._take_one():
                    continue
            except (OSError, TimeoutError, SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    # Cancelled in mid-work with the connection gone: the roll-back's error took the cancellation's
                    # place, and a provisioner that was told to stop would go on.
                    raise asyncio.CancelledError from error
                _log.warning("provisioner lost the database", error=repr(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_interval):
                    await self._wake.wait()

    async def _take_one(self) -> bool:
        async with self._engine.connect() as connection, connection.begin():
            row = (
                await connection.execute(
                    select(Operation.id, Operation.kind, Operation.tenant_id, Operation.payload, Operation.attempts)
                    .where(Operation.status == "pending", Operation.not_before <= text("now()"))
                    .order_by(Operation.created_at)
                    .limit(1)
                    .with_for_update(skip_locked=True)
                )
            ).one_or_none()
            if row is None:
                return False
            log = _log.bind(operation=str(row.id), kind=row.kind, tenant_id=str(row.tenant_id))
            try:
                async with connection.begin_nested():
                    await self._create(connection, row.tenant_id, row.payload)
            except Exception as error:
                # Whatever it is: a hook's bug that got away would end the provisioner, again at each new start.
                await self._failed(connection, row, error)
                log.exception("operation failed", attempt=row.attempts + 1)
            else:
                await connection.execute(
                    update(Operation)
                    .where(Operation.id == row.id)
                    .values(status="done", attempts=row.attempts + 1, payload={}, error=None, finished_at=text("now()"))
                )
                log.info("operation done")
            return True

    async def _failed(self, connection: AsyncConnection, row: Any, error: Exception) -> None:
        attempts = row.attempts + 1
        final = attempts >= _ATTEMPTS
        values: dict[str, Any] = {
            "attempts": attempts,
            # The first line alone: what follows may quote the statement, and with it somebody's data.
            "error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:2000],
            "status": "failed" if final else "pending",
            "not_before": datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2.0**attempts / 2),
        }
        if final:
            values |= {"payload": {}, "finished_at": text("now()")}
            await connection.execute(
                update(Tenant)
                .where(Tenant.id == row.tenant_id)
                .values(status="failed", status_reason="provisioning failed", status_changed_at=text("now()"))
            )
        await connection.execute(update(Operation).where(Operation.id == row.id).values(**values))

    async def _create(self, connection: AsyncConnection, tenant_id: UUID, payload: dict[str, Any]) -> None:
        raw = await connection.get_raw_connection()
        await create_schema(cast("DriverConnection", raw.driver_connection), tenant_id)
        given = payload["owner"]
        owner = Owner(
            email=given["email"],
            id=UUID(given["id"]),
            name=given.get("name"),
            password_hash=given.get("password_hash"),
            invitation_hash=bytes.fromhex(given["invitation_hash"]) if given.get("invitation_hash") else None,
            invitation_ttl=given.get("invitation_ttl", 0),
        )
        session = AsyncSession(connection, expire_on_commit=False, join_transaction_mode="rollback_only")
        for hook in self._hooks:
            await hook(session, owner)
        await session.flush()
        # The path leads to the tenant's schema; the shared tables are named with theirs.
        await connection.execute(
            update(Tenant)
            .where(Tenant.id == tenant_id, Tenant.status == "provisioning")
            .values(status="active", status_changed_at=text("now()"), revision=head("tenant"))
        )
        _log.debug("schema made", schema=schema_name(tenant_id))
