"""Where the servers of a test run keep their files."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from tests import servers


@pytest.fixture(autouse=True)
def _nothing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "disk"))
    (tmp_path / "disk").mkdir()


def place() -> Path:
    folder = servers.temporary_folder()
    try:
        assert folder.stat().st_mode & 0o777 == 0o711
        return folder.parent
    finally:
        shutil.rmtree(folder)


def test_they_are_in_memory_where_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_MEMORY", tmp_path)
    monkeypatch.setattr(servers, "_ROOM", 1)
    assert place() == tmp_path


def test_they_are_on_the_disk_where_memory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_MEMORY", tmp_path)
    monkeypatch.setattr(servers, "_ROOM", 2**62)
    assert place() == tmp_path / "disk"


def test_they_are_on_the_disk_where_the_system_has_no_files_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_MEMORY", tmp_path / "missing")
    assert place() == tmp_path / "disk"


def test_whoever_names_a_place_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_MEMORY", tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "disk"))
    assert place() == tmp_path / "disk"
