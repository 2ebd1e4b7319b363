"""What a command is doing, as it does it; always on stderr, since stdout is for the answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

__all__ = ("Progress", "progress_bar")


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


@contextmanager
def progress_bar(text: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A bar with rate and time left; call what it gives with how many are done, and how many there are.

    Shown at a terminal alone: a log full of bars helps nobody.
    """
    console = Console(stderr=True, highlight=False)
    if quiet or not console.is_terminal:
        yield lambda _done, _total: None
        return
    # Rich's bars take a tenth of a second to import, which commands without one need not wait for.
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or task.finished_speed or 0:.1f}/s", style="dim")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
