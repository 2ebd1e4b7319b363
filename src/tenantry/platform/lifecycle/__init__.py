"""What is done to a tenant as a whole: archived and restored, cloned, exported and imported."""

from tenantry.kernel.feature import Feature
from tenantry.platform.lifecycle.controller import ImportController, LifecycleController, TenantExportController

FEATURE = Feature(name="lifecycle", controllers=(LifecycleController, TenantExportController, ImportController))
