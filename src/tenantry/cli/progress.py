"""What `up` is doing, as it does it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

__all__ = ("Progress",)


class Progress:
    """Steps on stderr: with a spinner and the time they took at a terminal, else a plain line each."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, quiet=quiet)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """One step; a line when it begins, or, at a terminal, when it has ended."""
        if not self._console.is_terminal:
            self.say(text)
            yield
            return
        begun = time.monotonic()
        with self._console.status(Text(text)):
            yield
        self._console.print(Text.assemble(("✓ ", "green"), text, (f"  {time.monotonic() - begun:.1f} s", "dim")))

    def say(self, text: str, style: str = "") -> None:
        """One line, not broken."""
        self._console.print(Text(text, style=style), soft_wrap=True)
