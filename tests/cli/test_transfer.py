from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import pytest

from tenantry.cli.transfer import _write, size_of, transfer_bar


def test_at_a_terminal_a_bar_shows_bytes_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TTY_INTERACTIVE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with transfer_bar("Fetching", 4_000_000) as tell:
        tell(1_000_000)
        tell(3_000_000)
    printed = capsys.readouterr()
    assert printed.out == "", "stdout may be the file"
    assert "Fetching" in printed.err
    assert "4.0/4.0 MB" in printed.err
    with transfer_bar("Fetching", 4_000_000, quiet=True) as tell:
        tell(4_000_000)
    assert capsys.readouterr().err == ""


def test_elsewhere_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with transfer_bar("Fetching", 10) as tell:
        tell(10)
    assert capsys.readouterr() == ("", "")


def test_what_the_system_takes_in_parts_is_written_whole() -> None:
    class Narrow(io.BytesIO):
        def write(self, content: Any) -> int:
            return super().write(content[:3])

    file = Narrow()
    _write(cast("io.FileIO", file), b"ten bytes.")
    assert file.getvalue() == b"ten bytes."


def test_sizes_are_for_people(tmp_path: Path) -> None:
    assert [size_of(count) for count in (0, 999, 1_234_567)] == ["0 bytes", "999 bytes", "1.2 MB"]
