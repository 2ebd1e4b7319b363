"""docs/archive-format.md's example of a reader, as it stands there, reads what the application writes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from tenantry.features import TENANT_METADATA
from tenantry.platform.archives.format import (
    FORMAT,
    FORMAT_VERSION,
    ArchivedTable,
    ArchivedTenant,
    ArchiveTables,
    Manifest,
)
from tenantry.platform.archives.writer import write_archive
from tenantry.tenancy.models import schema_name
from tests.docs.blocks import DOCS
from tests.platform.archives.support import as_owner
from tests.world import TenantHandle

DOCUMENT = (DOCS / "archive-format.md").read_text()


def _example() -> str:
    (source,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    return str(source)


def _run(program: Path, archive: Path) -> str:
    return subprocess.run([sys.executable, "-I", program, archive], capture_output=True, text=True, check=True).stdout


async def test_the_example_reads_an_archive(acme: TenantHandle, tmp_path: Path) -> None:
    path = tmp_path / "acme.zip"
    await acme.add_team('The "Reds", and others', description="two\nlines", tags=["a,b"])
    async with as_owner(acme.world.addresses.owner_url) as owner:
        await write_archive(
            owner,
            schema=schema_name(acme.tenant_id),
            tenant=ArchivedTenant(
                id=acme.tenant_id, slug=acme.slug, name="Acme", plan="free", owner_email=acme.owner_email
            ),
            tables=ArchiveTables.of(TENANT_METADATA),
            path=path,
            credentials=False,
        )
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(_example(), "archive-format.md", "exec"), names)
    manifest, tables = names["read_archive"](path)
    assert manifest["tenant"]["slug"] == acme.slug
    assert [(row["name"], row["description"]) for row in tables["team"]] == [('The "Reds", and others', "two\nlines")]
    assert [row["email"] for row in tables["user_account"]] == [acme.owner_email]
    program = tmp_path / "example.py"
    program.write_text(_example())
    printed = _run(program, path)
    assert printed.startswith("Acme at revision ")
    assert "\nteam 1\n" in printed


def test_the_document_names_every_field_and_no_other() -> None:
    said = re.findall(r"^\| `(\w+)` \|", DOCUMENT, re.MULTILINE)
    fields = [field.encode_name for kind in (Manifest, ArchivedTable) for field in msgspec.structs.fields(kind)]
    assert said == fields
    assert f'"{FORMAT}"' in DOCUMENT
    assert f"its version {FORMAT_VERSION}." in DOCUMENT
    for field in msgspec.structs.fields(ArchivedTenant):
        assert f"`{field.encode_name}`" in DOCUMENT
