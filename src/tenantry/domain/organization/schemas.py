"""The organization on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from tenantry.events.definition import Payload
from tenantry.kernel.schema import BaseStruct
from tenantry.tenancy.entitled import FeatureState, LimitsRead, QuotaUse

__all__ = ("ExportOf", "OrganizationExport", "OrganizationPlan", "OrganizationRead", "TenantPlan", "TenantSelf")


class OrganizationPlan(BaseStruct):
    slug: str
    name: str


class OrganizationRead(BaseStruct):
    id: UUID
    slug: str
    name: str
    plan: OrganizationPlan


class TenantPlan(BaseStruct):
    slug: str
    name: str
    description: str | None


class TenantSelf(BaseStruct):
    """What the organization is entitled to, and how much of it it uses."""

    id: UUID
    slug: str
    name: str
    plan: TenantPlan
    limits: LimitsRead
    features: list[FeatureState]
    quotas: list[QuotaUse]


class OrganizationExport(BaseStruct):
    """A copy of the organization's data; what is in it is known once it is done."""

    id: UUID
    status: Literal["pending", "done", "failed", "expired"]
    bytes: int | None
    sha256: str | None
    """Of the file."""
    created_at: datetime
    finished_at: datetime | None
    expires_at: datetime | None
    """When the file is removed."""


class ExportOf(Payload):
    """Of the event: who had asked for it."""

    user_id: UUID
