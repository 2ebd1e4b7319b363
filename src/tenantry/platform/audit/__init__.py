"""The control plane's audit trail."""

from tenantry.kernel.feature import Feature
from tenantry.platform.audit.controller import AuditController
from tenantry.platform.audit.models import AuditEntry

FEATURE = Feature(name="audit", controllers=(AuditController,), models=(AuditEntry,))
