"""The servers that a test run uses: one PostgreSQL and one Valkey for all its processes.

Started by the pytest process that the user started, never by an xdist worker; the addresses reach the workers through
the environment:

- `TENANTRY_TEST_ADMIN_URL`: a `postgresql://` address with the rights to create databases and roles;
- `TENANTRY_TEST_REDIS_URL`: a `redis://` address;
- `TENANTRY_TEST_RUN`: eight hexadecimal digits of this run, for names in servers that several runs share.

With TENANTRY_DATABASE_URL and TENANTRY_REDIS_URL set, these servers are used and nothing is started. A run drops what
it has made there; what runs have left that were killed is named at its end (`tests.leftovers`).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import shutil
import tempfile
from pathlib import Path

import psutil
import pytest

from tenantry.dev.embedded import EmbeddedServer
from tenantry.dev.postgres import EmbeddedPostgres
from tenantry.dev.valkey import EmbeddedValkey
from tests.leftovers import deployments_of, drop_databases, leftovers_of

__all__ = ("LEFT", "UNSAFE_BUT_FAST", "make_database_name", "start_servers", "stop_servers", "temporary_folder")

ADMIN_URL = "TENANTRY_TEST_ADMIN_URL"
REDIS_URL = "TENANTRY_TEST_REDIS_URL"
RUN = "TENANTRY_TEST_RUN"

# Nothing of a test run has to survive a power cut. Without synchronous_commit not even a kill of the server: a test of
# that starts a server of its own, or sets it to `on` in its session.
UNSAFE_BUT_FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    # Its files may lie in memory.
    "max_wal_size": "256MB",
}

# What a run's servers take at most, of which a half is the WAL; twice as much has to be free.
_ROOM = 2 * 2**30
_MEMORY = Path("/dev/shm")

LEFT: list[str] = []
"""Databases that other runs have on the server that was given, perhaps because they were killed."""

_external: list[str] = []
"""The address of that server, until this run has dropped what it has made there."""
_counter = itertools.count(1)
_servers: list[EmbeddedServer] = []
_folders: list[Path] = []


def temporary_folder(prefix: str = "tenantry-tests-") -> Path:
    """A new folder that the user `nobody` may pass, as PostgreSQL has to when the tests run as root.

    pytest's own `tmp_path` may be passed by its owner alone. It is in memory where there is room: of the 370 files of a
    database, of which a run clones 450, each is made in a tenth of the time.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=_MEMORY if _has_room(_MEMORY) else None))
    folder.chmod(0o711)
    return folder


def _has_room(memory: Path) -> bool:
    """Whether a run's servers fit there, and into what the machine has left."""
    if "TMPDIR" in os.environ or not os.access(memory, os.W_OK):
        return False
    room: int = min(shutil.disk_usage(memory).free, psutil.virtual_memory().available)
    return room >= _ROOM


def start_servers(config: pytest.Config) -> None:
    """To be called from `pytest_configure`: see the module."""
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    os.environ[RUN] = secrets.token_hex(4)
    database, redis = os.environ.get("TENANTRY_DATABASE_URL"), os.environ.get("TENANTRY_REDIS_URL")
    if database and redis:
        if deployed := asyncio.run(deployments_of(database)):
            raise pytest.UsageError(
                f"the tests give Tenantry's roles passwords of their own: not on a server with {', '.join(deployed)}"
            )
        LEFT[:] = asyncio.run(leftovers_of(database))
        _external.append(database)
        os.environ[ADMIN_URL], os.environ[REDIS_URL] = database, redis
        return
    if database or redis:
        raise pytest.UsageError("set both TENANTRY_DATABASE_URL and TENANTRY_REDIS_URL to test on them, or neither")
    folder = temporary_folder()
    _folders.append(folder)
    postgres = EmbeddedPostgres(
        folder / "postgres", settings=UNSAFE_BUT_FAST, max_connections=300, sync=False, delete_with_parent=True
    )
    valkey = EmbeddedValkey(folder / "valkey", persistent=False, delete_with_parent=True)
    try:
        for server in (postgres, valkey):
            server.start()
            _servers.append(server)
    except BaseException:
        stop_servers(config)
        raise
    os.environ[ADMIN_URL], os.environ[REDIS_URL] = postgres.url("postgres"), valkey.url()


def stop_servers(config: pytest.Config) -> None:
    """To be called from `pytest_unconfigure`: stops what `start_servers` started, and deletes its files."""
    if hasattr(config, "workerinput"):
        return
    while _external:
        url = _external.pop()
        asyncio.run(drop_databases(url, asyncio.run(leftovers_of(url, run=os.environ[RUN]))))
    while _servers:
        server = _servers.pop()
        if isinstance(server, EmbeddedPostgres):
            # No checkpoint for what is deleted next; unlike a kill, it removes its shared memory.
            server.stop("immediate")
        else:
            server.stop()
    while _folders:
        shutil.rmtree(_folders.pop())
    for name in (ADMIN_URL, REDIS_URL, RUN):
        os.environ.pop(name, None)


def make_database_name(purpose: str = "test") -> str:
    """A database name (also good for a role) that no other worker or run on this server uses; at most 63 bytes."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    return f"tenantry_{purpose}_{os.environ[RUN]}_{worker}_{next(_counter)}"
