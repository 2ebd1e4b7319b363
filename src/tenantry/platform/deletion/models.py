"""What remains of a purged tenant."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import SharedBase
from tenantry.tenancy.scope import SHARED_SCHEMA

__all__ = ("PurgeCertificate",)


class PurgeCertificate(SharedBase):
    """What was removed, with counts, signed."""

    __tablename__ = "purge_certificate"
    __table_args__ = (UniqueConstraint("tenant_id", name="uq_purge_certificate_tenant_id"),)

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey(f"{SHARED_SCHEMA}.tenant.id"))
    slug: Mapped[str] = mapped_column(Text)
    """The slug that it had; another tenant may have it by now."""
    certificate: Mapped[dict[str, Any]] = mapped_column(JSONB)
    jws: Mapped[str] = mapped_column(Text)
    """The certificate as a compact JWS (RFC 7515), signed with the deployment's key."""
