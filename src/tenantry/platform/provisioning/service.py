"""Operations."""

from __future__ import annotations

from advanced_alchemy.repository import SQLAlchemyAsyncRepository

from tenantry.kernel.service import Service, create_service_provider
from tenantry.platform.provisioning.models import Operation

__all__ = ("OperationService", "provide_operations")


class OperationService(Service[Operation]):
    """What the provisioner has done, or is to do."""

    class Repo(SQLAlchemyAsyncRepository[Operation]):
        model_type = Operation

    repository_type = Repo


provide_operations = create_service_provider(
    OperationService, error_messages={"not_found": "There is no such operation."}
)
