"""The place of backups: a folder or a bucket, in which everything is encrypted and nothing is half there.

A backup is two files. The rows come first; the manifest, which says how many octets they are and what their digest is,
comes once they are stored. What has no manifest is no backup: it was being written, or whoever wrote it was killed.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
from collections import defaultdict
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from tenantry.kernel.errors import ConflictException, ResourceNotFoundException, define_problem
from tenantry.kernel.security import Vault, VaultError
from tenantry.kernel.storage import ObjectNotFoundError, Storage
from tenantry.kernel.threads import to_the_end
from tenantry.platform.archives.reader import ArchiveReader
from tenantry.platform.backups.format import BackupManifest, BackupName, decode_manifest
from tenantry.platform.backups.sealing import BackupDamagedError, open_bytes, open_sealed, seal_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from uuid import UUID

    from pydantic import SecretStr

    from tenantry.kernel.settings import Settings

__all__ = ("BACKUP_DAMAGED", "BackupStore", "Listing", "by_folder", "damaged", "open_keys")

_ANY_SIZE = 1 << 62
_CHUNK = 1 << 20

BACKUP_DAMAGED = define_problem(
    "backup-damaged",
    409,
    "Damaged backup",
    "The backup is not what was written, or its key is not here. Nothing of it was used.",
)


def damaged(error: BackupDamagedError) -> ConflictException:
    """The same, as a command reports it."""
    return ConflictException(str(error)[:1].upper() + str(error)[1:] + ".", problem=BACKUP_DAMAGED)


def open_keys(settings: Settings) -> Vault:
    """The keys of backups; a file that the settings name must be there, else it is made.

    Raises:
        VaultError: it is not there, or not to be trusted.
    """
    path, named = settings.backup_key_path, settings.backup_key_file is not None
    if named and not path.exists():
        raise VaultError(
            f"there are no keys of backups at {path}: TENANTRY_BACKUP_KEY_FILE says where they are, "
            "`tenantry backup keys create` makes some"
        )
    vault = Vault(path, create=not named)
    vault.open()
    return vault


@dataclass(frozen=True, slots=True)
class _Place:
    """What `Storage.open` reads of the settings, of backups."""

    storage_address: str
    storage_s3_endpoint: str | None
    storage_s3_region: str | None
    storage_s3_access_key_id: str | None
    storage_s3_secret_access_key: SecretStr | None


@dataclass(frozen=True, slots=True)
class Listing:
    """What is in the store."""

    good: tuple[BackupName, ...]
    """Those with a manifest, the newest first."""
    partial: tuple[tuple[str, datetime.datetime], ...]
    """Files of others: their keys, and when each was last changed."""

    def of(self, tenant_id: UUID | None) -> list[BackupName]:
        """A tenant's, or the shared schema's, the newest first."""
        return [name for name in self.good if name.tenant_id == tenant_id]

    def latest(self) -> dict[UUID | None, BackupName]:
        """The newest of each."""
        found: dict[UUID | None, BackupName] = {}
        for name in self.good:
            found.setdefault(name.tenant_id, name)
        return found


class BackupStore:
    """Backups by name."""

    def __init__(self, storage: Storage, vault: Vault) -> None:
        self._storage = storage
        self.vault = vault

    @classmethod
    def open(cls, settings: Settings) -> BackupStore:
        """The place that the settings name, and their keys, made where the settings name no file of them.

        Raises:
            VaultError: the file of keys is not there, or not to be trusted.
            StorageUnavailableError: the folder cannot be made.
        """
        vault = open_keys(settings)
        place = _Place(
            settings.backup_address,
            settings.backup_s3_endpoint,
            settings.backup_s3_region,
            settings.backup_s3_access_key_id,
            settings.backup_s3_secret_access_key,
        )
        return cls(Storage.open(place), vault)

    def scratch(self) -> AbstractAsyncContextManager[Path]:
        """A private folder for encrypted files on their way."""
        return self._storage.scratch()

    async def list(self) -> Listing:
        """All that there is."""
        manifests: set[BackupName] = set()
        payloads: dict[BackupName, tuple[str, datetime.datetime]] = {}
        lone: dict[BackupName, tuple[str, datetime.datetime]] = {}
        async for info in self._storage.list():
            if (found := BackupName.of_key(info.key)) is None:
                continue
            name, part = found
            if part == "manifest":
                manifests.add(name)
                lone[name] = info.key, info.modified
            else:
                payloads[name] = info.key, info.modified
        good = manifests & payloads.keys()
        partial = [found for name, found in (*payloads.items(), *lone.items()) if name not in good]
        return Listing(tuple(sorted(good, key=lambda name: name.id, reverse=True)), tuple(sorted(partial)))

    async def find(self, backup_id: str) -> BackupName:
        """The backup of that id.

        Raises:
            ResourceNotFoundException: there is none.
        """
        for name in (await self.list()).good:
            if name.id == backup_id:
                return name
        raise ResourceNotFoundException(f"There is no backup {backup_id!r}.")

    async def put_payload(self, name: BackupName, path: Path) -> None:
        await self._storage.put_file(name.payload_key, path)

    async def put_manifest(self, manifest: BackupManifest) -> None:
        """Make it a backup. Everything else of it is stored."""
        name = manifest.name
        sealed = seal_bytes(msgspec.json.encode(manifest), self.vault, name=name.manifest_key)
        await self._storage.put_bytes(name.manifest_key, sealed)

    async def manifest(self, name: BackupName) -> BackupManifest:
        """What a backup says of itself.

        Raises:
            BackupDamagedError: that is not what was written, or it is not there any more.
        """
        try:
            sealed = await self._storage.get_bytes(name.manifest_key)
        except ObjectNotFoundError as error:
            raise BackupDamagedError(f"{name.manifest_key} is not there any more") from error
        plain = open_bytes(sealed, self.vault, name=name.manifest_key)
        try:
            manifest = decode_manifest(plain)
        except msgspec.MsgspecError as error:
            raise BackupDamagedError(f"{name.manifest_key} is of a form that this release does not know") from error
        if manifest.name != name:
            raise BackupDamagedError(f"{name.manifest_key} is another backup's")
        return manifest

    async def is_whole(self, name: BackupName) -> bool:
        """Whether its manifest can be read, and as many octets are there as it says; the rows are not read."""
        try:
            manifest = await self.manifest(name)
        except BackupDamagedError:
            return False
        info = await self._storage.head(name.payload_key)
        return info is not None and info.size == manifest.bytes

    @asynccontextmanager
    async def open_archive(self, manifest: BackupManifest) -> AsyncIterator[ArchiveReader]:
        """The archive in a backup, every byte of it checked: the file's digest, each piece, each table.

        What lies on the disk meanwhile is encrypted.

        Raises:
            BackupDamagedError: it is not what the manifest says.
            ArchiveError: what is in it is no archive.
        """
        name = manifest.name
        async with self._storage.scratch() as folder:
            path = folder / "backup"
            try:
                await self._storage.fetch_to(name.payload_key, path)
            except ObjectNotFoundError as error:
                raise BackupDamagedError(f"{name.payload_key} is not there any more") from error
            if await to_the_end(functools.partial(_digest, path)) != (manifest.bytes, manifest.sha256):
                raise BackupDamagedError(f"{name.payload_key} is not the file that its manifest describes")
            file = await to_the_end(lambda: open_sealed(path, self.vault, name=name.payload_key))
            with file:
                async with ArchiveReader.open(file, size_limit=_ANY_SIZE) as reader:
                    if reader.manifest.tables != manifest.tables or reader.manifest.revision != manifest.revision:
                        raise BackupDamagedError(f"{name.payload_key} does not hold what its manifest says")
                    yield reader

    async def delete(self, name: BackupName) -> None:
        """Remove a backup: first what makes it one."""
        await self._storage.delete(name.manifest_key)
        await self._storage.delete(name.payload_key)

    async def delete_file(self, key: str) -> None:
        await self._storage.delete(key)


def by_folder(names: tuple[BackupName, ...]) -> dict[UUID | None, list[BackupName]]:
    """Names by whose they are, in their order."""
    found: dict[UUID | None, list[BackupName]] = defaultdict(list)
    for name in names:
        found[name.tenant_id].append(name)
    return found


def _digest(path: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()
