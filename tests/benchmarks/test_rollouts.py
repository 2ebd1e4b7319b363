"""What the benchmark of rollouts makes of its figures."""

from __future__ import annotations

import io

from rich.console import Console

from benchmarks.rollouts import Rollouts, table

FOUND = Rollouts(
    tenants=1000,
    concurrency=4,
    command=[4.0, 2.0, 8.0],
    engine=[2.0, 1.0, 4.0],
    psql=[1.0, 1.0, 2.0],
    no_op=[0.1, 0.2, 0.3],
    alembic=20.0,
    alembic_sample=50,
)


def test_ratios_are_taken_within_each_round() -> None:
    assert FOUND.ratio == 0.25
    assert FOUND.engine_ratio == 0.5
    assert FOUND.alembic_ratio == 5.0


def test_an_aim_that_is_missed_is_shown_as_such() -> None:
    console = Console(width=160, file=io.StringIO())
    with console.capture() as captured:
        console.print(table(FOUND))
    said = captured.get()
    assert "0.8 missed" in said
    assert "1.0 s reached" in said
    assert "scaled from 50" in said
