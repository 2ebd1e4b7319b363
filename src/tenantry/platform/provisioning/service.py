"""Operations."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from advanced_alchemy.repository import SQLAlchemyAsyncRepository

from tenantry.kernel.service import Service, create_service_provider
from tenantry.platform.provisioning.models import Operation

if TYPE_CHECKING:
    from uuid import UUID

    from tenantry.tenancy.database import Database
    from tenantry.tenancy.scope import Scope

__all__ = ("OperationService", "provide_operations", "wait_for_operation")


class OperationService(Service[Operation]):
    """What the provisioner has done, or is to do."""

    class Repo(SQLAlchemyAsyncRepository[Operation]):
        model_type = Operation

    repository_type = Repo


async def wait_for_operation(database: Database, read_scope: Scope, operation_id: UUID, seconds: float) -> Operation:
    """The operation when it has ended, or as it is after `seconds`.

    Asks in short transactions of its own: the caller must hold none.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    pause = 0.01
    while True:
        async with database.transaction(read_scope) as transaction:
            found = await transaction.session.get_one(Operation, operation_id)
        if found.status != "pending" or loop.time() + pause > deadline:
            return found
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.25)


provide_operations = create_service_provider(
    OperationService, error_messages={"not_found": "There is no such operation."}
)
