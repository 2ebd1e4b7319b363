# mypy: ignore-errors
"""django-tenants' middleware with a memory."""

from __future__ import annotations

from django_tenants.middleware.main import TenantMainMiddleware

_tenants = {}


class CachedTenantMiddleware(TenantMainMiddleware):
    def get_tenant(self, domain_model, hostname):
        tenant = _tenants.get(hostname)
        if tenant is None:
            # Never forgotten: a deployment would have to, and would pay for it.
            tenant = _tenants[hostname] = super().get_tenant(domain_model, hostname)
        return tenant
