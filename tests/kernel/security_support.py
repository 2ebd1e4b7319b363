"""What the tests of keys and tokens share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ("Clock", "content")


class Clock:
    """Wall clock and monotonic clock of a test, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.ticks = 0.0

    def __call__(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.ticks

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.ticks += seconds


def content(path: Path) -> dict[str, Any]:
    """What is in a file of keys."""
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded
