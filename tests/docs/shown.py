"""Output as the handbook shows it, beside what a command has said."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ("missing_of",)


def missing_of(shown: Iterable[str], output: str) -> str:
    """The first line that is shown and was not said, or ``.

    Lines are looked for in their order; others may be between. `…` stands for anything within a line, and blanks for as
    many as there are.
    """
    said = iter(output.splitlines())
    for line in shown:
        wanted = re.compile(
            r"\s*" + r".*?".join(r"\s+".join(map(re.escape, part.split())) for part in _spaced(line)) + r"\s*"
        )
        if not any(wanted.fullmatch(found) for found in said):
            return line
    return ""


def _spaced(line: str) -> list[str]:
    return line.split("…")
