"""Tenants, as operators see them."""

from tenantry.kernel.feature import Feature
from tenantry.platform.tenants.controller import TenantController
from tenantry.tenancy.models import Tenant

FEATURE = Feature(name="tenants", controllers=(TenantController,), models=(Tenant,))
