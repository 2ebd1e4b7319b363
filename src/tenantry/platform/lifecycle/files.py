"""Where a tenant's files lie in the storage, and bringing them there and back."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from tenantry.kernel.errors import UnavailableException, ValidationFailedException
from tenantry.kernel.threads import to_the_end
from tenantry.platform.deletion.holdings import tenant_folder

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from tenantry.kernel.storage import Storage

__all__ = (
    "ANY_SIZE",
    "IMPORTS",
    "StoredFile",
    "archive_key",
    "check_import_key",
    "discard",
    "export_key",
    "store",
)

ANY_SIZE = 1 << 62
"""Our own archive is as large as the tenant was: the limit of imports is for those of others."""

IMPORTS = "imports"
"""The folder of archives that wait to be imported: not yet any tenant's."""

_IMPORT_KEY = re.compile(rf"{IMPORTS}(?:/[A-Za-z0-9_-][A-Za-z0-9._-]{{0,127}}){{1,4}}")
_CHUNK = 1 << 20

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in the storage; `size` in bytes, `sha256` in hexadecimal."""

    key: str
    size: int
    sha256: str


def archive_key(tenant_id: UUID, operation_id: UUID) -> str:
    """Where an archive goes: under the operation's id, so that whoever tries again overwrites it."""
    return f"{tenant_folder(tenant_id)}/archives/{operation_id}.zip"


def export_key(tenant_id: UUID, operation_id: UUID) -> str:
    """Where an export goes, likewise."""
    return f"{tenant_folder(tenant_id)}/exports/{operation_id}.zip"


def check_import_key(key: str) -> str:
    """The key of an archive that may be imported: of nothing outside the folder of those.

    Raises:
        ValidationFailedException: it is another's, a tenant's own archive perhaps.
    """
    if _IMPORT_KEY.fullmatch(key) is None:
        raise ValidationFailedException.of("key", f"Expected the key of a file below {IMPORTS}/.")
    return key


async def store(storage: Storage, key: str, path: Path) -> StoredFile:
    """Put a local file into the storage, and say what it is.

    Raises:
        StorageFullError, StorageUnavailableError: it is not there then.
    """
    size, sha256 = await to_the_end(lambda: _digest(path))
    await storage.put_file(key, path)
    return StoredFile(key, size, sha256)


def _digest(path: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


async def discard(storage: Storage, key: str) -> None:
    """Remove a file that nobody needs; where the storage is away, the provisioner's chore does so later."""
    try:
        await storage.delete(key)
    except UnavailableException as error:
        _log.warning("a file could not be removed", key=key, error=error.detail)
