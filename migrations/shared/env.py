"""Alembic's environment of the shared schema; `tenantry.tenancy.migrations` calls it, with a connection."""

from __future__ import annotations

from alembic import context

from tenantry.features import SHARED_METADATA
from tenantry.tenancy.migrations import run_environment
from tenantry.tenancy.scope import SHARED_SCHEMA

run_environment(context, SHARED_METADATA, schema=SHARED_SCHEMA)
