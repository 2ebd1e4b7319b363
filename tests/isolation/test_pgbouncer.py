"""The same through PgBouncer in transaction mode, which gives one backend to two tenants in turn."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry.tenancy.database import Database
from tests.databases import Template, clone_database, drop_database
from tests.isolation.estate import Estate
from tests.isolation.machine import ENDINGS, Machine, Turn, turns
from tests.servers import temporary_folder
from tests.world import TenantHandle, open_world

_ROOT = Path(__file__).parents[2]
PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="there is no pgbouncer on this machine")


def _version() -> tuple[int, ...]:
    assert PGBOUNCER is not None
    shown = subprocess.run([PGBOUNCER, "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"PgBouncer (\d+)\.(\d+)", shown)
    assert found is not None
    return tuple(int(number) for number in found.groups())


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _write(folder: Path, ini: str) -> tuple[Path, dict[str, Any]]:
    """The configuration, and as whom to run with it: PgBouncer refuses to be root."""
    config = folder / "pgbouncer.ini"
    config.write_text(ini)
    if os.geteuid() != 0:
        return config, {}
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, "nobody")
    return config, {"user": "nobody", "extra_groups": []}


async def _start(folder: Path, ini: str) -> asyncio.subprocess.Process:
    """PgBouncer, once it listens; RuntimeError with what it said if it ends instead."""
    config, as_nobody = _write(folder, ini)
    assert PGBOUNCER is not None
    process = await asyncio.create_subprocess_exec(PGBOUNCER, str(config), stderr=subprocess.PIPE, **as_nobody)
    assert process.stderr is not None
    said = b""
    while line := await process.stderr.readline():
        said += line
        if b"process up" in line:
            return process
    await process.wait()
    raise RuntimeError(said.decode())


_PLAIN = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = 1
"""


def _documented() -> str:
    """The configuration of docs/scale.md, for this server, with one connection to it, as a template like `_PLAIN`."""
    found = re.search(r"```ini\n(.*?)```", (_ROOT / "docs/scale.md").read_text(), re.DOTALL)
    assert found is not None
    ini = found[1]
    for pattern, replacement in (
        (r"^tenantry = .*$", "* = host={host} port={port}"),
        (r"^listen_addr = .*$", "listen_addr = 127.0.0.1\nunix_socket_dir ="),
        (r"^listen_port = .*$", "listen_port = {listen}"),
        (r"^auth_file = .*$", "auth_file = {users}"),
        (r"^default_pool_size = .*$", "default_pool_size = 1"),
    ):
        ini, count = re.subn(pattern, replacement, ini, flags=re.MULTILINE)
        assert count == 1, pattern
    if _version() < (1, 21):
        ini = re.sub(r"^max_prepared_statements = .*$", "", ini, flags=re.MULTILINE)
    return ini


@asynccontextmanager
async def _open_pgbouncer(url: str, *, settings: str = "", template: str = _PLAIN) -> AsyncIterator[str]:
    """The address of a PgBouncer before the server of `url`, with one connection to it."""
    parts = urlsplit(url)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    folder = temporary_folder("tenantry-pgbouncer-")
    users = folder / "users.txt"
    users.touch(0o600)
    users.write_text(f'"{user}" "{password}"\n')
    process = None
    try:
        for attempt in range(5):
            port = _free_port()
            ini = template.format(host=parts.hostname, port=parts.port or 5432, listen=port, users=users) + settings
            try:
                process = await _start(folder, ini)
                break
            except RuntimeError:
                # Somebody else may have taken the port meanwhile.
                if attempt == 4:
                    raise
        assert process is not None
        assert process.stderr is not None
        draining = asyncio.create_task(process.stderr.read())
        netloc = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}"
        yield urlunsplit((parts.scheme, netloc, parts.path, parts.query, ""))
        process.terminate()
        await draining
    finally:
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
        shutil.rmtree(folder)


@pytest.fixture(scope="module", params=["without prepared statements", "with prepared statements"])
async def machine(
    estate: Estate, admin: asyncpg.Connection[Any], request: pytest.FixtureRequest
) -> AsyncIterator[Machine]:
    prepared = request.param == "with prepared statements"
    if prepared and _version() < (1, 21):
        pytest.skip("PgBouncer knows prepared statements from 1.21 on")
    options = "max_prepared_statements = 100" if prepared else ""
    async with _open_pgbouncer(estate.addresses.app_url, settings=options) as url:
        # More connections to the pooler than it has to the server.
        database = Database(url, pool_size=3, max_overflow=0, prepared_statements=prepared)
        yield Machine(database, estate, admin)
        await database.close()


async def test_two_tenants_share_a_backend(machine: Machine, estate: Estate) -> None:
    """Otherwise the tests of this module would say nothing."""
    pids = set()
    for tenant in estate.tenants * 2:
        async with machine.database.transaction(tenant.context.read_scope) as transaction:
            pids.add(await transaction.connection.fetchval("SELECT pg_backend_pid()"))
    assert len(pids) == 1


@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(st.lists(turns(), min_size=6, max_size=16))
async def test_two_tenants_in_turn_read_their_own_row_and_no_other(machine: Machine, sequence: list[Turn]) -> None:
    for turn in sequence:
        await machine.play(turn)


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_turn_leaves_nothing_behind_for_the_next_tenant(machine: Machine, ending: str) -> None:
    for orm in (True, False):
        await machine.play(Turn(0, orm, ("write", "nested", "nested_error"), ending, 15))
        await machine.play(Turn(1, orm, ("read", "write"), "commit", 0))


async def test_tenants_whose_transactions_take_turns_on_the_backend_read_their_own_row(machine: Machine) -> None:
    async def read(number: int) -> None:
        for turn in range(10):
            await machine.read_loosely((number + turn) % 2)

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(read(number))


async def test_arrays_are_read_without_set_config(machine: Machine, estate: Estate) -> None:
    tenant = estate.tenants[0]
    async with machine.database.transaction(tenant.context.read_scope) as transaction:
        names = await transaction.connection.fetchval("SELECT array_agg(name) FROM tag WHERE id <> ALL($1::uuid[])", [])
    assert names == [tenant.marker]


async def test_the_whole_application_goes_through_the_documented_configuration(
    template: Template, tmp_path: Path
) -> None:
    """Its registry alone goes past it, since LISTEN needs a session: a suspended tenant is refused at once."""
    addresses = await clone_database(template)
    try:
        async with (
            _open_pgbouncer(addresses.app_url, template=_documented()) as url,
            open_world(
                addresses,
                tmp_path,
                database_url=url,
                database_listen_url=addresses.app_url,
                database_prepared_statements=_version() >= (1, 21),
                # A poll does not come in time for what this is about.
                registry_poll_interval=4,
                registry_stale_after=30,
            ) as world,
        ):
            acme, globex = await world.create_tenant("acme"), await world.create_tenant("globex")

            async def work(tenant: TenantHandle, name: str) -> None:
                for number in range(5):
                    await tenant.add_team(f"{name} {number}")
                    answer = await tenant.get("/api/teams", params={"pageSize": 100})
                    assert [team["name"] for team in answer.json()["items"]] == [
                        f"{name} {known}" for known in range(number + 1)
                    ]

            async with asyncio.TaskGroup() as group:
                group.create_task(work(acme, "Acme"))
                group.create_task(work(globex, "Globex"))
            answer = await world.operator.post(f"/platform/tenants/{acme.slug}/suspend", json={"reason": "a test"})
            assert answer.status_code == 200, answer.text
            async with asyncio.timeout(2):
                while (await acme.get("/api/teams")).status_code != 403:
                    await asyncio.sleep(0.05)
            assert (await globex.get("/api/teams")).status_code == 200
    finally:
        await drop_database(addresses)
