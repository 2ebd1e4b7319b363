"""A tenant as a whole, on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

from msgspec import Meta

from tenantry.kernel.schema import BaseStruct, Email, Password, ShortText, Slug
from tenantry.platform.tenants.schemas import Reason, TenantName

if TYPE_CHECKING:
    from tenantry.platform.provisioning.models import Operation

__all__ = ("ArchivePayload", "ExportPayload", "ExportRead", "TenantClone", "TenantImport", "read_export")


class ArchivePayload(BaseStruct):
    reason: Reason | None = None


class TenantClone(BaseStruct):
    slug: Slug
    name: TenantName
    mask_emails: bool
    """Replace what identifies people, and leave their passwords out; `ownerEmail` is then required."""
    plan: Slug | None = None
    """When left out, the plan of the organization that is cloned."""
    owner_email: Email | None = None
    """Who becomes an owner of the clone: the user with this address, or a new one."""
    owner_password: Password | None = None
    """When left out, the answer carries an invitation with which the owner sets one."""
    owner_name: ShortText | None = None


class TenantImport(BaseStruct):
    key: Annotated[str, Meta(min_length=1, max_length=600)]
    """Where the archive lies in the storage: below `imports/`."""
    slug: Slug
    owner_email: Email
    """Who becomes the owner: the user with this address, or a new one."""
    name: TenantName | None = None
    """When left out, the name in the archive."""
    plan: Slug | None = None
    """When left out, the plan in the archive."""
    owner_password: Password | None = None
    """When left out, the answer carries an invitation with which the owner sets one."""
    owner_name: ShortText | None = None


class ExportPayload(BaseStruct):
    credentials: bool = False
    """Whether it holds what people sign in with. Only who may purge tenants may have that."""


class ExportRead(BaseStruct):
    """One export; what is in it is known once it is done."""

    id: UUID
    status: Literal["pending", "done", "failed"]
    error: str | None
    credentials: bool | None
    bytes: int | None
    sha256: str | None
    """Of the file."""
    tables: int | None
    rows: int | None
    requested_by: str
    created_at: datetime
    finished_at: datetime | None
    expires_at: datetime | None
    """When the file is removed."""
    expired: bool
    """Whether it has been."""


def read_export(operation: Operation, struct: type[ExportRead] = ExportRead) -> ExportRead:
    """An operation of the kind `export` as operators see it."""
    result = operation.result or {}
    expires = result.get("expiresAt")
    return struct(
        id=operation.id,
        status=operation.status,  # type: ignore[arg-type]
        error=operation.error,
        credentials=result.get("credentials", operation.payload.get("credentials")),
        bytes=result.get("bytes"),
        sha256=result.get("sha256"),
        tables=result.get("tables"),
        rows=result.get("rows"),
        requested_by=operation.requested_by,
        created_at=operation.created_at,
        finished_at=operation.finished_at,
        expires_at=None if expires is None else datetime.fromisoformat(expires),
        expired=bool(result.get("removed")),
    )
