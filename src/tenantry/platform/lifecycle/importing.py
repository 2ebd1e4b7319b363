"""The operation `import`: a new tenant with the rows of an archive, which anybody may have made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from tenantry.kernel.storage import ObjectNotFoundError
from tenantry.platform.archives.format import MANIFEST, ArchiveError
from tenantry.platform.archives.reader import ArchiveReader, load_archive
from tenantry.platform.lifecycle.building import begin_at, finish_at_head, require_same_rows
from tenantry.platform.lifecycle.founding import abandon, adopt, open_doors
from tenantry.platform.provisioning.operations import OperationFailed
from tenantry.tenancy.revisions import RevisionError, path_between

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tenantry.kernel.storage import Storage
    from tenantry.platform.archives.format import Manifest
    from tenantry.platform.lifecycle.founding import AdoptOwner
    from tenantry.platform.provisioning.operations import Work

__all__ = ("REFUSED", "ImportHandler", "check_revision")

REFUSED = "The archive is refused. "
"""How the error of an import begins that no further attempt could mend."""


def check_revision(manifest: Manifest) -> None:
    """Refuse an archive that this release cannot bring to its own revision.

    Raises:
        ArchiveError: a newer release has written it, or another product altogether.
    """
    try:
        path_between("tenant", manifest.revision)
    except RevisionError as error:
        raise ArchiveError.of(MANIFEST, f"a revision that this release does not know: {error}") from error


class ImportHandler:
    """Checks the archive once more, all of it, and loads it."""

    kind: ClassVar[str] = "import"

    def __init__(self, *, storage: Storage, adopt_owner: AdoptOwner, size_limit: int) -> None:
        """`size_limit` is what an archive may hold, inflated, in bytes."""
        self._storage = storage
        self._adopt_owner = adopt_owner
        self._size_limit = size_limit

    async def run(self, work: Work) -> Mapping[str, Any]:
        await work.be_patient()
        tenant = await work.tenant()
        key: str = work.payload["key"]
        try:
            async with self._storage.scratch() as folder:
                path = folder / "archive.zip"
                await self._storage.fetch_to(key, path)
                await work.step("archive fetched")
                async with ArchiveReader.open(path, size_limit=self._size_limit) as reader:
                    manifest = reader.manifest
                    check_revision(manifest)
                    await begin_at(work, manifest.revision)
                    await work.step("schema made")
                    await load_archive(work.driver, reader, schema=tenant.schema_name)
        except ArchiveError as error:
            raise OperationFailed(f"{REFUSED}{error.detail}") from error
        except ObjectNotFoundError as error:
            raise OperationFailed(f"{REFUSED}It is not there any more.") from error
        await work.step("rows loaded")
        await require_same_rows(work, manifest)
        await work.step("rows compared")
        revision = await finish_at_head(work, manifest.revision)
        try:
            await adopt(work, self._adopt_owner)
        except OperationFailed as error:
            raise OperationFailed(f"{REFUSED}{error}") from error
        await work.step("schema migrated")
        await open_doors(work, tenant, revision)
        rows = sum(table.rows for table in manifest.tables)
        # The upload is needed until this has committed; the provisioner's chore removes it thereafter.
        return {"key": key, "source": str(manifest.tenant.id), "rows": rows, "revision": revision}

    async def give_up(self, work: Work, error: str) -> None:
        """What was uploaded stays for a while, for another attempt."""
        await abandon(work, "import failed")
