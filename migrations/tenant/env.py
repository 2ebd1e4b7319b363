"""Alembic's environment of a tenant's schema; `tenantry.tenancy.migrations` calls it, with a connection or offline."""

from __future__ import annotations

from alembic import context

from tenantry.features import TENANT_METADATA
from tenantry.tenancy.migrations import run_environment

run_environment(context, TENANT_METADATA, schema=None)
