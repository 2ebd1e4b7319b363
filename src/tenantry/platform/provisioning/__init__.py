"""Work on schemas and roles, for the provisioner."""

from tenantry.kernel.feature import Feature
from tenantry.platform.provisioning.controller import OperationController
from tenantry.platform.provisioning.models import Operation

FEATURE = Feature(name="provisioning", controllers=(OperationController,), models=(Operation,))
