"""What is asked of the directory."""

from __future__ import annotations

from tenantry.kernel.schema import BaseStruct, Email

__all__ = ("OrganizationsRequest",)


class OrganizationsRequest(BaseStruct):
    email: Email
