"""What was written is what is loaded: a real tenant's rows, and every value that a column can hold."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tenantry.features import TENANT_METADATA
from tenantry.platform.archives.format import ArchivedTenant
from tenantry.platform.archives.reader import ArchiveReader, load_archive, verify_archive
from tenantry.platform.archives.writer import TableDigest, table_digests
from tenantry.tenancy.connection import DriverConnection
from tenantry.tenancy.database import owner_engine
from tenantry.tenancy.models import schema_name
from tests.databases import Template
from tests.domain.machines import make_key
from tests.platform.archives.support import (
    LIMIT,
    TABLES,
    as_owner,
    inflated,
    make_schema,
    make_tenant_schema,
    write,
)
from tests.platform.lifecycle.support import SECRET
from tests.world import TenantHandle

ROOT = Path(__file__).parents[3]


async def fill(tenant: TenantHandle, name: str) -> ArchivedTenant:
    """Some rows in most tables, each of them saying whose it is."""
    await tenant.add_user(f"{name}-ann", "admin")
    await make_key(tenant)
    await tenant.add_team(f'{name}s "Red", team', description=f"{name}:\nünïcode ✓", tags=[f"{name}-tag", "shared tag"])
    return ArchivedTenant(
        id=tenant.tenant_id, slug=tenant.slug, name=name.title(), plan="free", owner_email=tenant.owner_email
    )


async def invite_everybody(connection: DriverConnection, schema: str) -> None:
    await connection.execute(
        f"INSERT INTO {schema}.invitation (id, user_id, digest, expires_at, created_at, updated_at)"
        f"SELECT gen_random_uuid(), id, sha256(email::bytea), now(), now(), now() FROM {schema}.user_account"
    )


async def load(connection: DriverConnection, path: Path, schema: str) -> None:
    async with ArchiveReader.open(path, size_limit=LIMIT) as reader:
        await load_archive(connection, reader, schema=schema)


async def test_a_tenant_comes_back_as_it_was_and_no_other_is_touched(
    acme: TenantHandle, globex: TenantHandle, tmp_path: Path
) -> None:
    tenants = [(acme, await fill(acme, "acme")), (globex, await fill(globex, "globex"))]
    before: dict[str, dict[str, TableDigest]] = {}
    async with as_owner(acme.world.addresses.owner_url) as owner:
        for _, archived in tenants:
            await invite_everybody(owner, schema_name(archived.id))
            before[archived.slug] = await table_digests(owner, schema_name(archived.id))
        for _, archived in tenants:
            path, digests = tmp_path / f"{archived.slug}.zip", before[archived.slug]
            manifest = await write(owner, schema_name(archived.id), path, tables=TABLES, tenant=archived)
            assert await verify_archive(path, size_limit=LIMIT) == manifest
            assert {table.name: (table.rows, table.sha256) for table in manifest.tables} == digests
            assert {table.name for table in manifest.tables} == TENANT_METADATA.tables.keys()
            copy = await make_tenant_schema(owner, f"t_{uuid4().hex}")
            await load(owner, path, copy)
            assert await table_digests(owner, copy) == digests
            assert all(digests[name].rows for name in ("user_account", "team", "team_tag", "invitation"))
        for _, archived in tenants:
            assert await table_digests(owner, schema_name(archived.id)) == before[archived.slug]
    for (one, _), other in zip(tenants, ("globex", "acme"), strict=True):
        content = b"".join(inflated(tmp_path / f"{one.slug}.zip").values())
        assert one.slug.encode() in content
        assert other.encode() not in content.lower()
        assert b"shared tag" in content


async def test_without_credentials_there_is_nothing_to_log_in_with(acme: TenantHandle, tmp_path: Path) -> None:
    archived = await fill(acme, "acme")
    schema = schema_name(acme.tenant_id)
    path = tmp_path / "acme.zip"
    async with as_owner(acme.world.addresses.owner_url) as owner:
        await invite_everybody(owner, schema)
        manifest = await write(owner, schema, path, tables=TABLES, tenant=archived, credentials=False)
        secrets: list[str] = [
            row[0]
            for query in (
                "SELECT hashed_password FROM user_account WHERE hashed_password IS NOT NULL",
                "SELECT encode(refresh_digest, 'hex') FROM user_session",
                "SELECT encode(digest, 'hex') FROM invitation",
                "SELECT encode(digest, 'hex') FROM api_key",
            )
            for row in await _fetch_in(owner, schema, query)
        ]
        copy = await make_tenant_schema(owner, f"t_{uuid4().hex}")
        await load(owner, path, copy)
        users = await _fetch_in(owner, copy, "SELECT email, hashed_password, name FROM user_account")
        everybody = await _fetch_in(owner, schema, "SELECT email FROM user_account")
        assert {row["email"] for row in users} == {row["email"] for row in everybody}
        assert {row["hashed_password"] for row in users} == {None}
        for name in ("api_key", "user_session", "spent_refresh_token", "invitation"):
            assert not await _fetch_in(owner, copy, f"SELECT FROM {name}")
    assert len(secrets) >= 5
    assert manifest.left_out == sorted(SECRET)
    assert not manifest.credentials
    content = inflated(path)
    assert not {f"tables/{name}.csv" for name in manifest.left_out} & content.keys()
    assert not [secret for secret in secrets if secret.encode() in b"".join(content.values())]


async def _fetch_in(connection: DriverConnection, schema: str, query: str) -> Sequence[Any]:
    await connection.execute(f"SET LOCAL search_path TO {schema}")
    return await connection.fetch(query)


VALUES = """
CREATE TABLE value (
    id integer PRIMARY KEY, text text, words text[], bytes bytea, number double precision, exact numeric, flag boolean,
    moment timestamptz, day date, span interval, document jsonb, key uuid, grid integer[][],
    doubled integer GENERATED ALWAYS AS (id * 2) STORED
);
CREATE TABLE single (text text);
CREATE TABLE "select" ("from" text, "WHERE" text, PRIMARY KEY ("WHERE"))
"""
_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8) | st.sampled_from(
    ["", '"', '""', "\n", "\r\n", "\r", ",", "NULL", "\\N", "\\.", " ", "\t", "{}", "\ufeff", "'", ";", 'a,b\n"c"', "✓"]
)
_MOMENTS = st.datetimes(timezones=st.timezones())
_ROWS = st.lists(
    st.tuples(
        st.none() | _TEXT,
        st.none() | st.lists(st.none() | _TEXT, max_size=3),
        st.none() | st.binary(max_size=6),
        st.none() | st.floats(),
        st.none() | st.decimals(allow_infinity=False, places=3),
        st.none() | st.booleans(),
        st.none() | _MOMENTS,
        st.none() | st.dates(),
        st.none() | st.timedeltas(),
        st.none() | st.sampled_from(["null", '{"a": "\\"\\n"}', "[1, 2.50]"]),
        st.none() | st.uuids(),
        st.none() | st.sampled_from([[[1, 2], [3, 4]], [[-1]]]),
    ),
    max_size=4,
)


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(rows=_ROWS, texts=st.lists(st.none() | _TEXT, max_size=4))
async def test_every_value_comes_back_as_it_was(
    database: Template, tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]], texts: list[str | None]
) -> None:
    path = tmp_path_factory.mktemp("archive") / "values.zip"
    async with as_owner(database.owner_url) as owner:
        await make_schema(owner, "source", VALUES)
        await owner.executemany(
            "INSERT INTO value VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
            [(number, *row) for number, row in enumerate(rows)],
        )
        await owner.executemany("INSERT INTO single VALUES ($1)", [(one,) for one in texts])
        await owner.execute("""INSERT INTO "select" VALUES (NULL, 'a'), ('', 'B')""")
        manifest = await write(owner, "source", path)
        assert {table.name: table.rows for table in manifest.tables} == {
            "value": len(rows),
            "single": len(texts),
            "select": 2,
        }
        await make_schema(owner, "target", VALUES)
        await load(owner, path, "target")
        assert await table_digests(owner, "target") == await table_digests(owner, "source")
        for name in ("value", "single", '"select"'):
            differing = await owner.fetchval(
                f"SELECT count(*) FROM (SELECT r::text FROM source.{name} r"
                f" EXCEPT ALL SELECT r::text FROM target.{name} r) AS difference"
            )
            assert differing == 0


async def test_null_is_not_the_empty_text(owner: DriverConnection, tmp_path: Path) -> None:
    await make_schema(owner, "source", "CREATE TABLE value (id integer PRIMARY KEY, text text)")
    await owner.execute("INSERT INTO value VALUES (1, NULL), (2, ''), (3, 'a\"b,c\nd')")
    await write(owner, "source", tmp_path / "a.zip")
    assert inflated(tmp_path / "a.zip")["tables/value.csv"] == b'id,text\n1,\n2,""\n3,"a""b,c\nd"\n'


async def test_the_sessions_settings_do_not_change_an_archive(owner: DriverConnection, tmp_path: Path) -> None:
    await make_schema(owner, "source", VALUES)
    await owner.execute(
        "INSERT INTO value (id, bytes, number, moment, day, span) "
        "VALUES (1, '\\x00ff', 0.1::float8 + 0.2::float8, '2026-11-23 10:00:00+05', '2026-11-23', '1 day -2 hours')"
    )
    digests = await table_digests(owner, "source")
    await owner.execute(
        "SET LOCAL datestyle TO 'German, DMY'; SET LOCAL timezone TO 'Asia/Kolkata';"
        "SET LOCAL bytea_output TO 'escape'; SET LOCAL intervalstyle TO 'sql_standard';"
        "SET LOCAL extra_float_digits TO -10"
    )
    assert await table_digests(owner, "source") == digests
    await write(owner, "source", tmp_path / "a.zip")
    assert await owner.fetchval("SHOW datestyle") == "German, DMY", "the caller's settings were changed"
    await make_schema(owner, "target", VALUES)
    await load(owner, tmp_path / "a.zip", "target")
    assert await table_digests(owner, "target") == digests
    rows = inflated(tmp_path / "a.zip")["tables/value.csv"].decode()
    for value in ("\\x00ff", "2026-11-23 05:00:00+00", "0.30000000000000004", "P1DT-2H"):
        assert value in rows


async def test_rows_are_in_one_order_wherever_they_lie(owner: DriverConnection) -> None:
    for schema, order in (("one", "ASC"), ("other", "DESC")):
        await make_schema(owner, schema, VALUES)
        await owner.execute(
            f"INSERT INTO value (id) SELECT n FROM generate_series(1, 50) n ORDER BY n {order};"
            f"INSERT INTO single SELECT chr(n) FROM generate_series(40, 200) n ORDER BY n {order};"
            f"INSERT INTO \"select\" SELECT 'x', chr(n) FROM generate_series(40, 200) n ORDER BY n {order}"
        )
    assert await table_digests(owner, "one") == await table_digests(owner, "other")


async def test_it_is_at_home_in_a_transaction_of_sqlalchemys(database: Template, tmp_path: Path) -> None:
    """The provisioner's: what was done before is in the archive, and what is done afterwards is in the transaction."""
    engine = owner_engine(database.owner_url)
    try:
        async with engine.connect() as connection, connection.begin() as transaction:
            await connection.execute(text("SELECT 1"))
            driver = cast("DriverConnection", (await connection.get_raw_connection()).driver_connection)
            await make_schema(driver, "source", "CREATE TABLE a (id integer)")
            await connection.execute(text("INSERT INTO source.a VALUES (1)"))
            await write(driver, "source", tmp_path / "a.zip")
            await make_schema(driver, "target", "CREATE TABLE a (id integer)")
            await load(driver, tmp_path / "a.zip", "target")
            await connection.execute(text("INSERT INTO target.a VALUES (2)"))
            assert (await connection.execute(text("SELECT id FROM target.a ORDER BY id"))).scalars().all() == [1, 2]
            await transaction.rollback()
        async with as_owner(database.owner_url) as owner:
            assert await owner.fetchval("SELECT to_regclass('target.a')") is None
    finally:
        await engine.dispose()


async def test_progress_is_told_table_by_table(owner: DriverConnection, tmp_path: Path) -> None:
    await make_schema(owner, "source", "CREATE TABLE a (id integer); CREATE TABLE b (id integer)")
    await make_schema(owner, "target", "CREATE TABLE a (id integer); CREATE TABLE b (id integer)")
    told: list[tuple[int, int, str]] = []
    path = tmp_path / "a.zip"
    await write(owner, "source", path, progress=lambda *step: told.append(step))
    async with ArchiveReader.open(path, size_limit=LIMIT) as reader:
        await load_archive(owner, reader, schema="target", progress=lambda *step: told.append(step))
    assert told == [(1, 2, "a"), (2, 2, "b")] * 2


_FULL = """
import asyncio, resource, sys
from pathlib import Path
from tenantry.kernel.storage import StorageFullError
from tests.platform.archives.support import as_owner, make_schema, write

async def main():
    async with as_owner(sys.argv[1]) as owner:
        await make_schema(owner, "source", "CREATE TABLE value (text text)")
        await owner.execute("INSERT INTO value SELECT md5(n::text) FROM generate_series(1, 200000) n")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
        try:
            await write(owner, "source", Path(sys.argv[2]))
        except StorageFullError as error:
            print(error.detail)
        # The transaction goes on: whoever owns it decides what the failure means.
        print(await owner.fetchval("SELECT count(*) FROM source.value"))

asyncio.run(main())
"""


async def test_a_full_disk_is_said_and_leaves_no_half_archive(database: Template, tmp_path: Path) -> None:
    child = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _FULL, database.owner_url, str(tmp_path / "a.zip")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    said, rows = child.stdout.splitlines()
    assert said.startswith("There is no room for the file"), child.stdout
    assert rows == "200000"
    assert files_in(tmp_path) == []


async def test_a_writer_that_is_cancelled_leaves_nothing(owner: DriverConnection, tmp_path: Path) -> None:
    await make_schema(owner, "source", "CREATE TABLE a (id integer); CREATE TABLE b (text text)")
    await owner.execute("INSERT INTO b SELECT md5(n::text) FROM generate_series(1, 200000) n")
    path = tmp_path / "a.zip"
    reached = asyncio.Event()
    writing = asyncio.create_task(write(owner, "source", path, progress=lambda *_: reached.set()))
    await reached.wait()  # at the end of the first table; the second takes a while
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert files_in(tmp_path) == []
    assert await owner.fetchval("SELECT count(*) FROM b") == 200_000


async def test_a_file_that_is_there_is_not_overwritten(owner: DriverConnection, tmp_path: Path) -> None:
    await make_schema(owner, "source", "CREATE TABLE a (id integer)")
    path = tmp_path / "a.zip"
    await asyncio.to_thread(path.touch)
    with pytest.raises(FileExistsError):
        await write(owner, "source", path)
    assert files_in(tmp_path) == ["a.zip"]
