"""Deletion on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from msgspec import Meta

from tenantry.kernel.schema import BaseStruct
from tenantry.platform.tenants.schemas import Reason

__all__ = ("CertificateRead", "CertificateSummary", "PurgePayload")


class PurgePayload(BaseStruct):
    confirm: Annotated[str, Meta(max_length=63)]
    """The slug once more: what is purged cannot be brought back."""
    reason: Reason | None = None


class CertificateSummary(BaseStruct):
    id: UUID
    tenant_id: UUID
    slug: str
    """The one that the organization had; another may have it by now."""
    created_at: datetime


class CertificateRead(CertificateSummary):
    certificate: dict[str, Any]
    jws: str
    """The certificate as a compact JWS (RFC 7515), which others can verify."""
