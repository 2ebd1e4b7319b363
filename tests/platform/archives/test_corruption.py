"""An archive that is damaged, forged or of another kind is refused before a row of it is written anywhere."""

from __future__ import annotations

import hashlib
import io
import random
import re
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tenantry.platform.archives.format import ArchiveError, Manifest
from tenantry.platform.archives.reader import ArchiveReader, verify_archive
from tests.platform.archives.support import LIMIT, Forged


async def read(path: Path, *, size_limit: int = LIMIT) -> tuple[Manifest, list[bytes]]:
    """All that an archive holds."""
    async with ArchiveReader.open(path, size_limit=size_limit) as reader:
        return reader.manifest, [
            b"".join([chunk async for chunk in reader.rows(table)]) for table in reader.manifest.tables
        ]


def store(path: Path, content: bytes | bytearray) -> None:
    path.write_bytes(content)


async def refused(path: Path, *, size_limit: int = LIMIT) -> ArchiveError:
    with pytest.raises(ArchiveError) as raised:
        await verify_archive(path, size_limit=size_limit)
    error = raised.value
    assert error.status_code == 422
    assert error.problem.slug == "invalid-archive"
    assert error.detail.endswith(".")
    return error


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "acme.zip"


async def test_a_sound_archive_is_read(path: Path) -> None:
    """Else every refusal below would prove nothing."""
    forged = Forged(entries={"tag": {"rows": 2}})
    manifest, tables = await read(forged.put(path))
    assert [table.name for table in manifest.tables] == ["tag", "team"]
    assert tables == [content for _, content in forged.tables.values()]
    assert await verify_archive(path, size_limit=sum(map(len, tables))) == manifest


async def test_a_byte_that_is_flipped_anywhere_is_noticed_or_changes_nothing(path: Path) -> None:
    """What a ZIP says of times and rights is believed by nobody; all else is covered by a checksum."""
    whole = Forged(entries={"tag": {"rows": 2}}).put(path).read_bytes()
    sound = await read(path)
    chosen = random.Random(1)
    unnoticed = 0
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= chosen.randrange(1, 256)
        store(path, flipped)
        try:
            assert await read(path) == sound, position
        except ArchiveError:
            continue
        unnoticed += 1
    assert unnoticed < len(whole) / 4


async def test_an_archive_that_is_cut_off_anywhere_is_refused(path: Path) -> None:
    whole = Forged(entries={"tag": {"rows": 2}}).build()
    for length in range(0, len(whole), 7):
        store(path, whole[:length])
        await refused(path)


async def test_members_that_have_changed_places_are_refused(path: Path) -> None:
    """The sizes agree, and so do the columns."""
    forged = Forged(tables={"one": (["id"], b"id\n1\n"), "two": (["id"], b"id\n2\n")})
    document = forged.document()
    forged.tables = {"one": forged.tables["two"], "two": forged.tables["one"]}
    forged.manifest = {"tables": document["tables"]}
    error = await refused(forged.put(path))
    assert "tables/one.csv: expected the SHA-256" in error.detail
    assert error.members == {"member": "tables/one.csv"}


@pytest.mark.parametrize(
    ("forged", "says"),
    [
        (Forged(manifest={"format": "another"}), "expected the format 'tenantry-tenant', found 'another'"),
        (Forged(manifest={"formatVersion": 2, "unheardOf": 1}), "expected version 1 of the format, found 2"),
        (Forged(manifest={"unheardOf": 1}), "unknown field `unheardOf`"),
        (Forged(manifest={"tenant": {}}), r"\$.tenant"),
        (Forged(manifest={"createdAt": "yesterday"}), r"\$.createdAt"),
        (Forged(manifest={"credentials": 1}), r"\$.credentials"),
        (Forged(manifest={"leftOut": ["user_session"]}), "user_session is left out"),
        (Forged(manifest={"leftOut": ["tag"], "credentials": False}), "tag is named twice"),
        (Forged(manifest_bytes=b"{"), "expected JSON"),
        (Forged(manifest_bytes=b'{"format": "\xff"}'), "expected JSON"),
        (Forged(manifest_bytes=b"[]"), "object"),
        (Forged(manifest_bytes=b" " * (17 << 20)), "expected at most"),
        (Forged(without=["manifest.json"]), "manifest.json: expected it"),
        (Forged(without=["tables/team.csv"]), "tables/team.csv: expected it"),
        (Forged(extra=[("tables/spy.csv", b"id\n")]), "names no such member"),
        (Forged(extra=[("../../etc/passwd", b"")]), "names no such member"),
        (Forged(extra=[("/etc/passwd", b"")]), "names no such member"),
        (Forged(extra=[("tables/", b"")]), "names no such member"),
        (Forged(entries={"tag": {"name": "../tag", "file": "tables/../tag.csv"}}), r"\$.tables\[0\].name"),
        (Forged(entries={"tag": {"name": "tag\n"}}), r"\$.tables\[0\].name"),
        (Forged(entries={"tag": {"file": "../tag.csv"}}), "expected the table tag in tables/tag.csv"),
        (Forged(entries={"tag": {"file": "tables/team.csv"}}), "expected the table tag in tables/tag.csv"),
        (Forged(entries={"tag": {"name": "team", "file": "tables/team.csv"}}), "team is named twice"),
        (Forged(entries={"tag": {"columns": ["id", "id"]}}), "column id of tag is named twice"),
        (Forged(entries={"tag": {"columns": ["id", "na\x00me"]}}), r"\$.tables\[0\].columns"),
        (Forged(entries={"tag": {"columns": []}}), r"\$.tables\[0\].columns"),
        (Forged(entries={"tag": {"columns": ["id", "title"]}}), "expected the header id,title"),
        (Forged(entries={"tag": {"columns": ["name", "id"]}}), "expected the header name,id"),
        (Forged(entries={"tag": {"rows": 3}}), "expected 3 rows, found 2"),
        (Forged(entries={"tag": {"rows": -1}}), r"\$.tables\[0\].rows"),
        (Forged(entries={"tag": {"rows": 2, "bytes": 5}}), "expected 5 bytes, found more"),
        (Forged(entries={"tag": {"rows": 2, "bytes": 500}}), "expected 500 bytes, found"),
        (Forged(entries={"tag": {"rows": 2, "sha256": "0" * 64}}), "expected the SHA-256 0000"),
        (Forged(entries={"tag": {"rows": 2, "sha256": "0" * 63}}), r"\$.tables\[0\].sha256"),
        (Forged({"tag": (["id", "name"], b"id,name\n1,red\n2\n")}), "expected 2 values in row 2, found 1"),
        (Forged({"tag": (["id", "name"], b"id,name\n1,red\n\n")}), "expected 2 values in row 2, found 0"),
        (Forged({"tag": (["id"], b'id\n"1\n')}), r"expected CSV \(RFC 4180\)"),
        (Forged({"tag": (["id"], b"id\n\xff\n")}), "expected UTF-8"),
        (Forged({"tag": (["id"], b"")}), "expected the header id"),
    ],
)
async def test_what_is_not_as_it_should_be_is_named(path: Path, forged: Forged, says: str) -> None:
    error = await refused(forged.put(path))
    assert re.search(says, error.detail), error.detail


async def test_a_member_that_is_there_twice_is_refused(path: Path) -> None:
    forged = Forged(extra=[("tables/team.csv", b"id\n8\n")])
    with pytest.warns(UserWarning, match="Duplicate name"):
        forged.put(path)
    assert "tables/team.csv: expected once" in (await refused(path)).detail


async def test_a_name_that_only_begins_like_an_expected_one_is_refused(path: Path) -> None:
    """zipfile cuts names off at a NUL, other tools do not."""
    whole = Forged(extra=[("tables/team.csv#.exe", b"id\n7\n")]).build()
    store(path, whole.replace(b"team.csv#", b"team.csv\x00"))
    assert "'tables/team.csv\\x00.exe': the manifest names no such member" in (await refused(path)).detail


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x05\x06" + bytes(17), bytes(100_000)])
async def test_a_file_that_is_no_zip_is_refused(path: Path, content: bytes) -> None:
    store(path, content)
    assert "expected a ZIP file" in (await refused(path)).detail


async def test_a_file_that_is_not_there_is_not_the_archives_fault(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await verify_archive(path, size_limit=LIMIT)


async def test_an_encrypted_member_is_refused(path: Path) -> None:
    whole = bytearray(Forged(entries={"tag": {"rows": 2}}).build())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = whole.index(b"tables/team.csv", whole.index(signature))
        header = whole.rindex(signature, 0, start)
        whole[header + offset] |= 1
    store(path, whole)
    assert "tables/team.csv: expected a plain ZIP file" in (await refused(path)).detail


def bomb(claimed: int, *, header: int | None = None, inflated: int = 300_000_000) -> bytes:
    """An archive whose one table inflates to `inflated` bytes, and whose manifest and headers say what they like."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        digest = hashlib.sha256()
        with archive.open("tables/tag.csv", "w") as member:
            for chunk in [b"id\n", *[bytes(1_000_000)] * (inflated // 1_000_000)]:
                digest.update(chunk)
                member.write(chunk)
        forged = Forged({"tag": (["id"], b"")}, entries={"tag": {"bytes": claimed, "sha256": digest.hexdigest()}})
        with zipfile.ZipFile(io.BytesIO(forged.build())) as other:
            archive.writestr("manifest.json", other.read("manifest.json"))
    whole = bytearray(content.getvalue())
    if header is not None:
        directory = whole.index(b"PK\x01\x02")
        struct.pack_into("<I", whole, directory + 24, header)
    return bytes(whole)


@pytest.mark.parametrize(
    ("claimed", "header", "says"),
    [
        (1000, None, "expected 1000 bytes, found more"),
        (1000, 1000, "Bad CRC-32"),
        (300_000_003, None, "expected at most 100000000 bytes of tables"),
    ],
    ids=["manifest lies", "header lies", "nobody lies"],
)
async def test_a_bomb_does_not_go_off(path: Path, claimed: int, header: int | None, says: str) -> None:
    store(path, bomb(claimed, header=header))
    tracemalloc.start()
    try:
        error = await refused(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert says in error.detail
    assert peak < 20_000_000


async def test_a_list_of_members_that_would_fill_the_memory_is_not_read(path: Path) -> None:
    """The end of a ZIP says how long the list is; zipfile would read it whole and make an object of each entry."""
    whole = bytearray(Forged().build())
    end = whole.index(b"PK\x05\x06")
    list_size = 17 << 20
    struct.pack_into("<I", whole, end + 12, list_size)
    store(path, bytes(list_size) + whole)
    assert "expected a list of members of at most" in (await refused(path)).detail


async def test_a_value_larger_than_pythons_own_limit_is_read(path: Path) -> None:
    large: Any = b"id\n" + b"x" * 1_000_000 + b"\n"
    await verify_archive(Forged({"tag": (["id"], large)}).put(path), size_limit=LIMIT)


async def test_a_file_that_changes_after_it_was_checked_is_noticed(path: Path) -> None:
    rows = random.Random(1).randbytes(200_000).hex("\n", 20).encode()
    whole = bytearray(Forged({"tag": (["id"], b"id\n" + rows + b"\n")}).put(path).read_bytes())
    async with ArchiveReader.open(path, size_limit=LIMIT) as reader:
        whole[len(whole) // 2] ^= 1
        store(path, whole)
        with pytest.raises(ArchiveError, match=r"tables/tag\.csv"):
            async for _ in reader.rows(reader.manifest.tables[0]):
                pass
