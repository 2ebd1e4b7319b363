"""The development outbox as `tenantry up` shows it: each mail in a line with its link."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tenantry.cli.progress import Progress

__all__ = ("Mailbox",)

_EVERY = 1.0
"""Seconds between looks."""


class Mailbox:
    """Says on the terminal what has come into the folder since it was made."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self._folder = folder
        self._progress = progress
        self._seen = self._names()
        self._next = 0.0

    def watch(self) -> None:
        """Call it over and over."""
        if (now := time.monotonic()) < self._next:
            return
        self._next = now + _EVERY
        new = self._names() - self._seen
        if not new:
            return
        self._seen |= new
        # Jinja, SMTP and all: whoever gets no mail need not wait for them.
        from tenantry.kernel.mail.outbox import list_mail

        for kept in reversed(list_mail(self._folder)):
            if kept.path.name in new:
                self._progress.say(f"Mail to {kept.to}: {kept.subject}  {' '.join(kept.links[:1])}".rstrip(), "cyan")

    def _names(self) -> set[str]:
        return {path.name for path in self._folder.glob("*.eml")}
