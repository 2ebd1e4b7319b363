"""Whether a backup is any good: read to its end, or restored beside everything and taken away again."""

from __future__ import annotations

import contextlib
import datetime
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uuid_utils.compat import uuid7

from tenantry.kernel.errors import ApplicationException
from tenantry.platform.archives.reader import load_archive
from tenantry.platform.backups.restoring import open_work
from tenantry.platform.backups.sealing import BackupDamagedError
from tenantry.platform.lifecycle.building import begin_at, finish_at_head, require_same_rows
from tenantry.platform.provisioning.fingerprint import fingerprint
from tenantry.platform.provisioning.operations import OperationFailed
from tenantry.platform.provisioning.reference import reference
from tenantry.tenancy.models import schema_name
from tenantry.tenancy.revisions import RevisionError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from tenantry.platform.backups.format import BackupManifest, BackupName
    from tenantry.platform.backups.store import BackupStore

__all__ = ("BackupChecker", "Verdict")


class _Undo(Exception):  # noqa: N818 - no error: it takes back what was restored to be looked at
    pass


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of one backup after a look at it."""

    name: BackupName
    manifest: BackupManifest | None
    """None where it cannot be read."""
    problem: str | None
    """Why it is no good; None where it is."""
    restored: bool
    """Whether it was restored, and not only read."""
    seconds: float
    """How long that took: of one that was restored, what a restore would take."""
    notes: tuple[str, ...] = ()
    """What is worth knowing of one that is good."""

    @property
    def age(self) -> float | None:
        """Seconds since the moment that it shows: what would be lost."""
        if self.manifest is None:
            return None
        return (datetime.datetime.now(datetime.UTC) - self.manifest.created_at).total_seconds()


class BackupChecker:
    """Looks at backups. Writes nothing that stays."""

    def __init__(self, store: BackupStore, engine: AsyncEngine | None, *, actor: str) -> None:
        """`engine` is the owner's, for `deep`: of the database in which backups are restored for a moment."""
        self._store = store
        self._engine = engine
        self._actor = actor

    async def verify(self, name: BackupName, *, deep: bool = False) -> Verdict:
        """Read a backup to its end: encryption, digests and counts; with `deep`, restore it as well."""
        began = time.monotonic()
        manifest: BackupManifest | None = None
        problem: str | None = None
        notes: tuple[str, ...] = ()
        restores = deep and name.tenant_id is not None and self._engine is not None
        try:
            manifest = await self._store.manifest(name)
            if restores and self._engine is not None:
                notes = await self._restore(self._engine, manifest)
            else:
                async with self._store.open_archive(manifest):
                    pass
        except (BackupDamagedError, OperationFailed) as error:
            problem = str(error)
        except ApplicationException as error:
            if error.status_code >= 500:
                # The place is away, or the disk full: that says nothing of the backup.
                raise
            problem = error.detail
        except Exception as error:
            if not restores:
                raise
            # Whatever the server says of these rows, in its first line: what follows may quote them.
            problem = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        return Verdict(name, manifest, problem, restores and not problem, round(time.monotonic() - began, 3), notes)

    async def _restore(self, engine: AsyncEngine, manifest: BackupManifest) -> tuple[str, ...]:
        scratch = uuid7()
        async with self._store.open_archive(manifest) as reader:
            with contextlib.suppress(_Undo):
                async with open_work(engine, scratch, actor=self._actor) as work:
                    await begin_at(work, manifest.revision)
                    await load_archive(work.driver, reader, schema=schema_name(scratch))
                    await require_same_rows(work, reader.manifest)
                    # Migrated as a restore would, and compared with what the revisions make.
                    await finish_at_head(work, manifest.revision)
                    raise _Undo
        return await self._notes(engine, manifest)

    async def _notes(self, engine: AsyncEngine, manifest: BackupManifest) -> tuple[str, ...]:
        if not manifest.as_revised:
            return ("the schema had been changed by hand: a restore makes it as its revision does, without that",)
        try:
            expected = fingerprint(await reference(engine, manifest.revision))
        except RevisionError:
            return ()
        if manifest.fingerprint != expected:
            return ("its fingerprint is of another PostgreSQL, or the revision was changed since",)
        return ()
