"""What the provisioner is asked to do, and what carries it out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.kernel.errors import ConflictException, define_problem
from tenantry.platform.provisioning.models import Operation
from tenantry.tenancy.models import Tenant

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from tenantry.tenancy.connection import DriverConnection

__all__ = (
    "OPERATION_CHANNEL",
    "OPERATION_PENDING",
    "Chore",
    "OperationFailed",
    "OperationHandler",
    "StepListener",
    "Work",
    "request_operation",
    "require_idle",
)

OPERATION_CHANNEL = "tenantry_operation"

OPERATION_PENDING = define_problem(
    "operation-pending",
    409,
    "Busy with something else",
    "The provisioner has not finished what was asked for this organization before; `operation` is its id.",
)

StepListener = Callable[[str], Awaitable[None]]
"""Called with a step's name when it has ended."""


class OperationFailed(Exception):  # noqa: N818 - it is the name of an outcome
    """An operation cannot succeed, however often it is tried. The text is shown to whoever asked."""


@dataclass
class Work:
    """One attempt at an operation, inside the transaction that will also hold its outcome."""

    operation_id: UUID
    kind: str
    tenant_id: UUID
    payload: dict[str, Any]
    requested_by: str
    attempt: int
    """From 1."""
    connection: AsyncConnection
    """The owner's; its search_path is the server's default, so every table is named with its schema."""
    engine: AsyncEngine
    """For a second connection, where one snapshot must stay while the first one writes."""
    driver: DriverConnection
    listener: StepListener | None = None
    _session: AsyncSession | None = field(default=None, repr=False)

    @property
    def session(self) -> AsyncSession:
        """An ORM session on the same transaction."""
        if self._session is None:
            self._session = AsyncSession(self.connection, expire_on_commit=False, join_transaction_mode="rollback_only")
        return self._session

    async def step(self, name: str) -> None:
        """Say that a step has ended. What the step did outside the database stays if the process ends here."""
        if self.listener is not None:
            await self.listener(name)

    async def tenant(self) -> Tenant:
        """The tenant, its row locked until the operation's end."""
        statement = select(Tenant).where(Tenant.id == self.tenant_id).with_for_update()
        return (await self.session.scalars(statement)).one()

    async def be_patient(self) -> None:
        """Let the transaction idle for an hour, not a minute as the owner's usually may: something is uploaded, say."""
        await self.driver.execute("SET LOCAL idle_in_transaction_session_timeout TO '1h'")


class OperationHandler(Protocol):
    """Carries out one kind of operation."""

    kind: ClassVar[str]

    async def run(self, work: Work) -> Mapping[str, Any] | None:
        """Do it, and return what is to be kept of it.

        Everything in the database is done on `work.connection` and thereby commits with the outcome or not at all.
        Everything else (files, Redis) must bear being done again: the process may end anywhere.

        Raises:
            OperationFailed: it can never succeed. Any other exception means that it is to be tried again.
        """

    async def give_up(self, work: Work, error: str) -> None:
        """Leave the tenant in a state that its operators can go on from; `run` was rolled back."""


class Chore(Protocol):
    """What the provisioner does by itself, again and again."""

    name: ClassVar[str]
    interval: float
    """Seconds between two looks."""

    async def run(self, engine: AsyncEngine) -> bool:
        """Do what is to be done now; True if there may be more at once. Several provisioners may do so together."""


async def require_idle(session: AsyncSession, tenant_id: UUID) -> None:
    """Refuse what cannot be done while the provisioner has something to do for a tenant.

    Raises:
        ConflictException: it has; `operation` is the id.
    """
    busy = select(Operation.id).where(Operation.tenant_id == tenant_id, Operation.status == "pending")
    if (pending := await session.scalar(busy)) is not None:
        raise ConflictException(
            "The provisioner has not finished what was asked for before.",
            problem=OPERATION_PENDING,
            operation=str(pending),
        )


async def request_operation(
    session: AsyncSession, *, kind: str, tenant_id: UUID, payload: dict[str, Any], requested_by: str, new: bool = False
) -> Operation:
    """Write down what the provisioner is to do, and wake it when the transaction commits.

    Args:
        new: the tenant is made in this transaction, so that nothing can have been asked for it before.

    Raises:
        ConflictException: it has not finished what was asked for this tenant before.
    """
    if not new:
        await require_idle(session, tenant_id)
    operation = Operation(kind=kind, tenant_id=tenant_id, payload=payload, requested_by=requested_by)
    session.add(operation)
    try:
        await session.flush()
    except IntegrityError as error:
        if "uq_operation_tenant_id_pending" not in str(error.orig):
            raise
        raise ConflictException("Something else was asked for a moment ago.", problem=OPERATION_PENDING) from error
    await session.execute(text("SELECT pg_notify(:channel, '')"), {"channel": OPERATION_CHANNEL})
    return operation
