"""What is known of a backup, and where it lies."""

from __future__ import annotations

import datetime
import re
import secrets
from dataclasses import dataclass
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from tenantry.kernel.schema import BaseStruct, Slug
from tenantry.platform.archives.format import ArchivedTable

__all__ = ("FORMAT_VERSION", "SHARED", "BackupManifest", "BackupName", "Kind", "decode_manifest", "new_id")

FORMAT_VERSION = 1
SHARED = "shared"
"""The folder of the shared schema's backups, and what commands call it."""

Kind = Literal["tenant", "shared"]

_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")
_NAME = re.compile(rf"(?:tenants/(?P<tenant>[0-9a-f-]{{36}})|shared)/(?P<id>{_ID.pattern})\.(?P<part>manifest|backup)")


def new_id(now: datetime.datetime) -> str:
    """An id: sorts by time, and tells it (UTC)."""
    return f"{now.astimezone(datetime.UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True, order=True)
class BackupName:
    """A backup by its place. Its files are `<folder>/<id>.backup` and, once that is whole, `<folder>/<id>.manifest`."""

    id: str
    tenant_id: UUID | None
    """None of the shared schema's."""

    @classmethod
    def of_key(cls, key: str) -> tuple[BackupName, Literal["manifest", "backup"]] | None:
        """Which backup's a file in the store is, and which of its two; None if it is none."""
        match = _NAME.fullmatch(key)
        if match is None:
            return None
        tenant = match["tenant"]
        try:
            name = cls(match["id"], None if tenant is None else UUID(tenant))
            _ = name.moment
        except ValueError:
            return None
        return name, "manifest" if match["part"] == "manifest" else "backup"

    @property
    def folder(self) -> str:
        return SHARED if self.tenant_id is None else f"tenants/{self.tenant_id}"

    @property
    def payload_key(self) -> str:
        return f"{self.folder}/{self.id}.backup"

    @property
    def manifest_key(self) -> str:
        return f"{self.folder}/{self.id}.manifest"

    @property
    def moment(self) -> datetime.datetime:
        """When it was begun, to the second."""
        return datetime.datetime.strptime(self.id[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)


class BackupManifest(BaseStruct):
    """What a backup says of itself, encrypted like the backup. Whoever reads it knows what to expect of the rest."""

    format_version: int
    id: str
    kind: Kind
    tenant_id: UUID | None
    slug: Slug | None
    """The tenant's, at that moment."""
    status: str | None
    created_at: Annotated[datetime.datetime, Meta(tz=True)]
    """The moment that it shows."""
    seconds: float
    """How long it took."""
    application: str
    revision: str
    fingerprint: str
    """Of the schema, as it was."""
    as_revised: bool
    """Whether that is what its revision makes of an empty one; False where somebody changed it by hand."""
    tables: list[ArchivedTable]
    bytes: int
    """Of the encrypted file."""
    sha256: str
    """Likewise."""
    key_id: str

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)

    @property
    def name(self) -> BackupName:
        return BackupName(self.id, self.tenant_id)


def decode_manifest(data: bytes) -> BackupManifest:
    """Raises `msgspec.MsgspecError` where it is none that this release knows."""
    found = msgspec.json.decode(data, type=BackupManifest)
    if found.format_version != FORMAT_VERSION:
        raise msgspec.ValidationError(f"expected version {FORMAT_VERSION} of the form, found {found.format_version}")
    return found
