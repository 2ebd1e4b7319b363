from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tenantry.cli import attended
from tenantry.cli.attended import Attended


class Dying:
    """A program that ends whenever it is told to, and notes what is done to it."""

    def __init__(self) -> None:
        self.label, self.log = "worker", Path("worker.log")
        self.code: int | None = None
        self.acts: list[str] = []

    def start(self) -> None:
        self.acts.append("start")
        self.code = None

    def stop(self) -> None:
        self.acts.append("stop")

    def ended(self) -> int | None:
        return self.code


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_what_ends_is_started_again_later_each_time_until_it_has_lasted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, program, said = Clock(), Dying(), []
    monkeypatch.setattr(attended, "time", clock)

    class Note:
        def say(self, text: str, style: str = "") -> None:
            said.append(text)

    watched = Attended(program, Note())  # type: ignore[arg-type]
    watched.start()
    watched.watch()
    assert (program.acts, said) == (["start"], [])

    def ends(delay: float) -> None:
        program.code = 1
        watched.watch()
        assert said.pop() == f"The worker has ended with exit code 1 (see worker.log); it starts again in {delay:g} s"
        clock.now += delay - 0.01
        watched.watch()
        assert program.code == 1
        clock.now += 0.02
        program.acts.clear()
        watched.watch()
        # Stopped first: what it has left behind holds files and ports.
        assert program.acts == ["stop", "start"]
        assert said == []

    delays: list[Any] = [0.5, 1, 2, 4, 8, 16, 30, 30]
    for delay in delays:
        ends(delay)
    clock.now += 61
    ends(0.5)
