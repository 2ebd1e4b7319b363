"""Operators in organizations: by their owners' consent, or by breaking the glass."""

from tenantry.kernel.feature import Feature
from tenantry.platform.tenant_access.controller import TenantAccessController
from tenantry.platform.tenant_access.models import OperatorAccess

FEATURE = Feature(name="tenant_access", controllers=(TenantAccessController,), models=(OperatorAccess,))
