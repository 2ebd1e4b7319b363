"""The documents of docs/operations/, as the tests read them: what is in their blocks, and what is said of each.

Above a block may stand comments, which readers do not see:

- `<!-- not run: why -->`: the tests cannot, for this reason;
- `<!-- given: tenant initech; dead job as JOB -->`: what has to be there first (`tests.docs.deployment` makes it);
- `<!-- ends with: 1 -->`: the exit code, where it is not 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.blocks import DOCS, ROOT

__all__ = ("FOLDER", "HANDBOOK", "RUN", "Block", "Step", "blocks_of", "steps_of")

FOLDER = DOCS / "operations"
# In the order of the index: whoever follows it meets them so.
HANDBOOK = sorted(FOLDER.glob("*.md"))

RUN = frozenset({"sh", "console", "sql"})
"""What is run. Of the others, `promql` is evaluated, and what is a file's is read by its own parser."""
LANGUAGES = RUN | {"promql", "ini", "json", "yaml", "toml", "text"}

_COMMENTS = r"(?P<comments>(?:^<!-- [^\n]+ -->\n)*)"
_BLOCK = re.compile(rf"{_COMMENTS}^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"^<!-- (?P<name>not run|given|ends with): (?P<value>.+) -->$")
_FENCE = re.compile(r"^```", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    document: Path
    line: int
    """Of the fence, from 1."""
    language: str
    text: str
    not_run: str = ""
    given: tuple[str, ...] = ()
    code: int = 0

    @property
    def place(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Step:
    """What one shell is given, and what has to be seen of it."""

    script: str
    shown: tuple[str, ...] = ()
    """Lines of the output, in their order; `…` stands for anything."""


def blocks_of(document: Path) -> list[Block]:
    """The blocks of a document, in its order.

    Raises:
        ValueError: a comment or a language is not understood, or a fence is not closed.
    """
    text = document.read_text()
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("text"))
        if match["language"] not in LANGUAGES:
            raise ValueError(f"{document}:{line}: a block is of one of {sorted(LANGUAGES)}")
        told: dict[str, str] = {}
        for comment in match["comments"].splitlines():
            known = _COMMENT.match(comment)
            if known is None:
                raise ValueError(f"{document}:{line}: {comment} says nothing that is understood")
            told[known["name"]] = known["value"]
        found.append(
            Block(
                document,
                line,
                match["language"],
                match["text"],
                not_run=told.get("not run", ""),
                given=tuple(part.strip() for part in told.get("given", "").split(";") if part.strip()),
                code=int(told.get("ends with", "0").split()[0].rstrip(",")),
            )
        )
    if len(_FENCE.findall(text)) != 2 * len(found):
        raise ValueError(f"{document}: a fence is not closed, or its comment is not right above it")
    return found


def steps_of(block: Block) -> list[Step]:
    """The shells that a block takes: one for `sh` and `sql`, one for each command of a `console`."""
    if block.language == "sh":
        return [Step(block.text)]
    if block.language == "sql":
        return [
            Step(
                f'psql "$ADMIN_URL" --no-psqlrc --quiet --set ON_ERROR_STOP=1 <<"END_OF_SQL"\n{block.text}END_OF_SQL\n'
            )
        ]
    return list(_console(block))


def _console(block: Block) -> Iterator[Step]:
    command, shown = "", list[str]()
    for line in block.text.splitlines():
        if line.startswith("$ "):
            if command:
                yield Step(command, tuple(shown))
            command, shown = line[2:] + "\n", []
        elif command.endswith("\\\n"):
            command += line + "\n"
        elif not command:
            raise ValueError(f"{block.place}: a console begins with a command")
        elif line.strip() not in {"", "…"}:
            shown.append(line)
    yield Step(command, tuple(shown))
