"""Routes of operations."""

from __future__ import annotations

from uuid import UUID

from litestar import Controller, get
from litestar.params import FromPath

from tenantry.kernel.service import Injected, to_struct
from tenantry.platform.provisioning.schemas import OperationRead
from tenantry.platform.provisioning.service import OperationService, provide_operations
from tenantry.tenancy.guards import requires_permission

__all__ = ("OperationController",)


class OperationController(Controller):
    """What was asked of the provisioner."""

    path = "/operations"
    tags = ["platform"]
    dependencies = {"operations": provide_operations}

    @get(
        "/{operation_id:uuid}",
        operation_id="GetOperation",
        summary="Get an operation",
        guards=[requires_permission("operations:read")],
    )
    async def get_operation(
        self, operations: Injected[OperationService], operation_id: FromPath[UUID]
    ) -> OperationRead:
        """How far an operation has come."""
        return to_struct(await operations.get(operation_id), OperationRead)
