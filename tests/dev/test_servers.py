from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tenantry.dev.process import wait_until
from tenantry.dev.servers import AlreadyRunning, EmbeddedServers, ServerError, delete_home
from tests.dev.support import DEADLINE, query, refuses, valkey_client
from tests.servers import UNSAFE_BUT_FAST

ROOT = Path(__file__).parents[2]


def test_both_start_stop_and_tell_what_they_do(home: Path) -> None:
    told: list[str] = []
    servers = EmbeddedServers(home / "new", settings=UNSAFE_BUT_FAST, progress=told.append)
    with servers:
        assert query(servers.postgres.url(), "SELECT 1") == 1
        with valkey_client(servers.valkey.url()) as client:
            assert client.ping() is True
        assert servers.ended() is None
        assert EmbeddedServers(home / "new").running_elsewhere() == servers.postgres.pid
    assert told == ["Creating and starting PostgreSQL", "Creating and starting Valkey"]
    assert EmbeddedServers(home / "new").running_elsewhere() is None
    assert refuses(servers.postgres.port)
    assert refuses(servers.valkey.port)


def test_a_server_that_ended_by_itself_is_reported(home: Path) -> None:
    with EmbeddedServers(home, settings=UNSAFE_BUT_FAST) as servers:
        os.kill(servers.valkey.pid, signal.SIGKILL)
        assert wait_until(lambda: servers.ended() is servers.valkey, DEADLINE)


def test_when_one_fails_the_other_is_stopped(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENANTRY_VALKEY_SERVER", "/nonexistent")
    servers = EmbeddedServers(home, settings=UNSAFE_BUT_FAST)
    with pytest.raises(ServerError, match="TENANTRY_VALKEY_SERVER"):
        servers.start()
    assert not servers.postgres.running
    assert refuses(servers.postgres.port)


def test_a_reset_deletes_what_is_ours_and_only_when_nothing_runs(home: Path) -> None:
    folder = home / "home"
    servers = EmbeddedServers(folder, settings=UNSAFE_BUT_FAST)
    with servers:
        with pytest.raises(AlreadyRunning):
            delete_home(folder)
        assert query(servers.postgres.url(), "SELECT 1") == 1
    (folder / "keyring.json").write_text("{}")
    (folder / "vault.json").write_text("{}")
    (folder / "notes.txt").write_text("mine")
    # As `make reset` does it where nothing is installed: by a bare Python.
    command = [sys.executable, "-S", "-m", "tenantry.dev.servers", "reset", str(folder)]
    subprocess.run(command, check=True, env={"PYTHONPATH": str(ROOT / "src")})
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    delete_home(folder)
    assert not folder.exists()
    delete_home(folder)
