"""What the benchmark of thousands of organizations makes of its figures."""

from __future__ import annotations

import datetime as dt
import io
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks.scale import Footprint, Round, Scale, Slice, table, write


def rounds(*ratios: float) -> list[Round]:
    return [Round(2.0, 5.0, 1000.0, 2.0 * ratio, 9.0, 1000.0 * ratio) for ratio in ratios]


FOUND = Scale(
    at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    tenants=5000,
    requests=72_000,
    age=60.0,
    footprint=Footprint(read=150.0, tables=900.0, count=55),
    hour={
        "replaced": [Slice(36_000, 15, 800.0, 90.0), Slice(72_000, 15, 700.0, 70.0)],
        "kept": [Slice(36_000, 9, 2000.0, 300.0), Slice(72_000, 9, 4000.0, 500.0)],
    },
    rounds={"replaced": rounds(1.1, 3.0, 1.15), "kept": rounds(1.25, 1.3, 1.0)},
    closed={"age": 30, "tenants": 4},
    first_visits={"replaced": 9000, "kept": 8000},
)


def shown() -> str:
    console = Console(width=180, file=io.StringIO())
    with console.capture() as captured:
        console.print(table(FOUND))
    return captured.get()


def test_the_multiple_is_the_median_of_the_rounds() -> None:
    assert round(FOUND.ratio("replaced"), 2) == 1.15
    assert round(FOUND.cpu_ratio("kept"), 2) == 1.25


def test_each_server_is_told_whether_it_has_reached_the_aim() -> None:
    said = shown()
    assert "1.15 reached" in said
    assert "1.25 missed" in said


def test_the_largest_backend_is_shown_at_its_largest() -> None:
    line = next(line for line in shown().splitlines() if "at any time" in line)
    assert "90" in line
    assert "500" in line


def test_the_result_is_written_as_json_and_as_a_picture(tmp_path: Path) -> None:
    document, plot = write(FOUND, tmp_path)
    assert msgspec.json.decode(document.read_bytes(), type=Scale) == FOUND
    assert plot.read_bytes().startswith(b"\x89PNG")
