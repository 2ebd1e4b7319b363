"""Alembic's environment of a tenant's schema; `tenantry.tenancy.migrations` calls it, with a connection or offline."""

from __future__ import annotations

from alembic import context

from tenantry.tenancy.migrations import run_environment

# Without the models: a rollout imports neither them nor Litestar, and `migrate new` brings them along.
run_environment(context, schema=None)
