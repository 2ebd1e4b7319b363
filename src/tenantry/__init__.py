"""Tenantry: a multi-tenant backend; see docs/architecture.md."""

__version__ = "0.1.0"
