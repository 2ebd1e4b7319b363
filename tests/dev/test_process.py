from __future__ import annotations

import os
import random
import socket
from pathlib import Path

import pytest

from tenantry.dev.process import (
    AlreadyRunning,
    DataLock,
    find_free_port,
    port_is_free,
    secret_file,
    server_environment,
    write_file,
)


def test_ports_are_free_and_below_the_ephemeral_range() -> None:
    for _ in range(20):
        port = find_free_port()
        assert 1024 < port < 32768
        assert port_is_free(port)


def test_a_seeded_random_does_not_make_two_runs_choose_alike() -> None:
    chosen = set()
    for _ in range(5):
        random.seed(0)
        chosen.add(find_free_port())
    assert len(chosen) > 1


def test_a_preferred_port_is_taken_when_free_only() -> None:
    port = find_free_port()
    assert find_free_port(port) == port
    with socket.create_server(("127.0.0.1", port)):
        assert not port_is_free(port)
        assert find_free_port(port) != port


def test_a_secret_is_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    secret = secret_file(path)
    assert len(secret) == 64
    assert secret_file(path) == secret
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("")
    assert len(secret_file(path)) == 64


def test_a_file_is_replaced_whole_and_never_through_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("untouched")
    link.symlink_to(target)
    write_file(link, "new")
    assert target.read_text() == "untouched"
    assert link.read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "target"]


def test_a_lock_is_held_once_and_survives_a_deleted_file(tmp_path: Path) -> None:
    path = tmp_path / "data.lock"
    first, second = DataLock(path, tmp_path), DataLock(path, tmp_path)
    first.acquire(0)
    assert second.held()
    with pytest.raises(AlreadyRunning, match=str(os.getpid())):
        second.acquire(0)
    path.unlink()
    # A lock on a file that no longer has the name guards nothing.
    second.acquire(0)
    second.release()
    first.release()
    assert not first.held()


def test_a_server_sees_no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    monkeypatch.setenv("TENANTRY_DATABASE_URL", "hunter2")
    assert "hunter2" not in server_environment().values()
