"""An archive goes into the schema that it was made from, and into no other; and what schemas can be archived."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from tenantry.platform.archives.catalog import SchemaNotPortableError
from tenantry.platform.archives.format import ArchiveError, ArchiveTables
from tenantry.platform.archives.reader import ArchiveReader, load_archive
from tenantry.platform.archives.writer import table_digests
from tenantry.tenancy.connection import DriverConnection
from tests.platform.archives.support import LIMIT, NO_MARKS, Forged, inflated, make_schema, make_tenant_schema, write

TWO = """
CREATE TABLE tag (id integer PRIMARY KEY, name text NOT NULL CHECK (name <> 'forbidden'));
CREATE TABLE team (id integer PRIMARY KEY REFERENCES tag)
"""


async def load(connection: DriverConnection, path: Path, schema: str) -> None:
    async with ArchiveReader.open(path, size_limit=LIMIT) as reader:
        await load_archive(connection, reader, schema=schema)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "acme.zip"


def forged(tag: bytes = b"id,name\n1,red\n", team: bytes = b"id\n1\n") -> Forged:
    return Forged({"tag": (["id", "name"], tag), "team": (["id"], team)})


async def test_an_archive_that_fits_is_loaded(owner: DriverConnection, path: Path) -> None:
    """Else every refusal below would prove nothing."""
    await make_schema(owner, "target", TWO)
    await load(owner, forged().put(path), "target")
    assert await owner.fetchval("SELECT name FROM target.tag JOIN target.team USING (id)") == "red"


async def _refused(owner: DriverConnection, path: Path) -> str:
    with pytest.raises(ArchiveError) as raised:
        async with owner.transaction():
            await load(owner, path, "target")
    for name in ("tag", "team"):
        if await owner.fetchval("SELECT to_regclass($1)", f"target.{name}") is not None:
            assert await owner.fetchval(f"SELECT count(*) FROM target.{name}") == 0, "something was written"
    return raised.value.detail


@pytest.mark.parametrize(
    ("tables", "revision", "says"),
    [
        (TWO, "0002", "manifest.json: expected the revision 0002, found 0001"),
        ("CREATE TABLE tag (id integer, name text)", "0001", "the table team is not in the schema at revision 0001"),
        (TWO + "; CREATE TABLE more (id integer)", "0001", "manifest.json: expected the table more as well"),
        (TWO + "; ALTER TABLE team ADD note text", "0001", "tables/team.csv: the column note is not in the archive"),
        (TWO + "; ALTER TABLE tag DROP name", "0001", "tables/tag.csv: the column name is not in the schema"),
        (
            "CREATE TABLE tag (id integer, name text GENERATED ALWAYS AS ('x') STORED); CREATE TABLE team (id integer)",
            "0001",
            "tables/tag.csv: the column name is not in the schema",
        ),
    ],
)
async def test_a_schema_of_another_shape_is_refused(
    owner: DriverConnection, path: Path, tables: str, revision: str, says: str
) -> None:
    await make_schema(owner, "target", tables, revision=revision)
    assert says in await _refused(owner, forged().put(path))


@pytest.mark.parametrize(
    ("archive", "says"),
    [
        (forged(tag=b"id,name\none,red\n"), "tables/tag.csv: rows that the table does not take: invalid input syntax"),
        (forged(tag=b"id,name\n1,forbidden\n"), "tables/tag.csv: rows that the table does not take"),
        (forged(tag=b"id,name\n1,red\n1,blue\n"), "tables/tag.csv: rows that the table does not take"),
        (forged(tag=b"id,name\n1,\n"), "tables/tag.csv: rows that the table does not take"),
        (forged(tag=b"id,name\n1,\x00\n"), "tables/tag.csv: rows that the table does not take"),
        (forged(team=b"id\n2\n"), "tables/team.csv: rows that the table does not take"),
        (
            Forged({"team": (["id"], b"id\n1\n"), "tag": (["id", "name"], b"id,name\n1,red\n")}),
            "tables/team.csv: rows that the table does not take",
        ),
        (
            Forged({"tag": (["id", "name"], b"id,name\n1,red\n")}, manifest={"credentials": False}),
            "expected the table team as well",
        ),
    ],
)
async def test_rows_that_break_a_rule_are_refused(
    owner: DriverConnection, path: Path, archive: Forged, says: str
) -> None:
    await make_schema(owner, "target", TWO)
    detail = await _refused(owner, archive.put(path))
    assert says in detail
    assert "Key (" not in detail
    assert "Failing row" not in detail


async def test_a_schema_with_rows_is_refused(owner: DriverConnection, path: Path) -> None:
    await make_schema(owner, "target", TWO)
    await owner.execute("INSERT INTO tag VALUES (9, 'older')")
    with pytest.raises(ArchiveError, match="expected the table to have 1 rows, found 2 of which 1 were loaded"):
        await load(owner, forged().put(path), "target")


async def test_rows_that_a_trigger_swallows_are_missed(owner: DriverConnection, path: Path) -> None:
    await make_schema(owner, "target", TWO)
    await owner.execute(
        "CREATE FUNCTION target.swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER swallow BEFORE INSERT ON team FOR EACH ROW EXECUTE FUNCTION target.swallow()"
    )
    with pytest.raises(ArchiveError, match=r"tables/team\.csv: expected the table to have 1 rows, found 0"):
        await load(owner, forged().put(path), "target")


async def test_a_missing_privilege_is_not_the_archives_fault(owner: DriverConnection, path: Path) -> None:
    await make_schema(owner, "target", TWO)
    await owner.execute("REVOKE INSERT ON team FROM tenantry_owner")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await load(owner, forged().put(path), "target")


async def test_the_database_decides_what_there_is(owner: DriverConnection, path: Path) -> None:
    """Tables and columns that no model knows are a tenant's data as well."""
    schema = await make_tenant_schema(owner, "source")
    await owner.execute(
        "CREATE TABLE unheard_of (id integer PRIMARY KEY); INSERT INTO unheard_of VALUES (1);"
        "ALTER TABLE tag ADD unheard_of text; CREATE VIEW looks AS SELECT * FROM tag;"
        "INSERT INTO tag VALUES (gen_random_uuid(), 'red', NULL, 'red', now(), now(), 'really')"
    )
    manifest = await write(owner, schema, path)
    assert "alembic_version" not in {table.name for table in manifest.tables}
    assert "looks" not in {table.name for table in manifest.tables}
    files = inflated(path)
    assert files["tables/unheard_of.csv"] == b"id\n1\n"
    assert files["tables/tag.csv"].endswith(b",really\n")


async def test_tables_are_in_the_order_of_their_foreign_keys(owner: DriverConnection, path: Path) -> None:
    tables = """
    CREATE TABLE z (id integer PRIMARY KEY); CREATE TABLE y (id integer PRIMARY KEY REFERENCES z);
    CREATE TABLE a (id integer REFERENCES y, z integer REFERENCES z);
    CREATE TABLE tree (id integer PRIMARY KEY, parent integer REFERENCES tree)
    """
    await make_schema(owner, "source", tables)
    await owner.execute(
        "INSERT INTO z VALUES (1); INSERT INTO y VALUES (1); INSERT INTO a VALUES (1, 1);"
        "INSERT INTO tree VALUES (9, NULL), (1, 9), (5, 1)"
    )
    manifest = await write(owner, "source", path)
    names = [table.name for table in manifest.tables]
    assert names.index("z") < names.index("y") < names.index("a")
    await make_schema(owner, "target", tables)
    await load(owner, path, "target")
    assert await table_digests(owner, "target") == await table_digests(owner, "source")


async def test_sequences_go_on_after_the_last_value(owner: DriverConnection, path: Path) -> None:
    tables = """
    CREATE TABLE counted (id integer GENERATED ALWAYS AS IDENTITY, old serial);
    CREATE TABLE down (id integer GENERATED ALWAYS AS IDENTITY (INCREMENT BY -1));
    CREATE TABLE none (id integer GENERATED ALWAYS AS IDENTITY)
    """
    await make_schema(owner, "source", tables)
    await owner.execute(
        "INSERT INTO counted SELECT FROM generate_series(1, 7); INSERT INTO down SELECT FROM generate_series(1, 3)"
    )
    await write(owner, "source", path)
    await make_schema(owner, "target", tables)
    await load(owner, path, "target")
    assert tuple(await owner.fetchrow("INSERT INTO counted DEFAULT VALUES RETURNING *") or ()) == (8, 8)
    assert await owner.fetchval("INSERT INTO down DEFAULT VALUES RETURNING id") == -4
    assert await owner.fetchval("INSERT INTO none DEFAULT VALUES RETURNING id") == 1


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        (
            "CREATE TABLE a (id integer PRIMARY KEY); CREATE TABLE b (id integer PRIMARY KEY REFERENCES a);"
            "ALTER TABLE a ADD FOREIGN KEY (id) REFERENCES b",
            "no order of loading satisfies the foreign keys",
        ),
        ('CREATE TABLE "two words" (id integer)', "the name 'two words'"),
        ('CREATE TABLE a ("../id" integer)', r"the name '\.\./id' in the table a"),
        ("CREATE TABLE a ()", "the table a has no columns"),
        ("CREATE SEQUENCE lonely", "the sequence lonely belongs to no column"),
        ("DROP TABLE alembic_version", "has no alembic_version"),
        ("DELETE FROM alembic_version", "expected the schema source to have one revision, found 0"),
    ],
)
async def test_a_schema_that_cannot_be_archived_says_why(
    owner: DriverConnection, tmp_path: Path, tables: str, says: str
) -> None:
    await make_schema(owner, "source", tables)
    with pytest.raises(SchemaNotPortableError, match=says):
        await write(owner, "source", tmp_path / "a.zip")
    with pytest.raises(SchemaNotPortableError, match=says):
        await table_digests(owner, "source")


@pytest.mark.parametrize(
    ("marks", "says"),
    [
        (ArchiveTables(frozenset(), {"tag": frozenset({"name"})}, {}), "tag.name is marked as secret but cannot be"),
        (ArchiveTables(frozenset({"tag"}), {}, {}), "team.id refers to tag, which is left out as secret"),
    ],
)
async def test_marks_that_would_make_an_archive_that_cannot_be_loaded_are_refused(
    owner: DriverConnection, tmp_path: Path, marks: ArchiveTables, says: str
) -> None:
    await make_schema(owner, "source", TWO)
    with pytest.raises(SchemaNotPortableError, match=says):
        await write(owner, "source", tmp_path / "a.zip", tables=marks, credentials=False)
    await write(owner, "source", tmp_path / "b.zip", tables=marks, credentials=True)
    await write(owner, "source", tmp_path / "c.zip", tables=NO_MARKS, credentials=False)
