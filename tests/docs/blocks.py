"""The blocks of a document that say which file they are, and what applies them to a folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ("DOCS", "ROOT", "Block", "apply", "read_blocks")

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_BLOCK = re.compile(
    r"^<!-- (?P<kind>file|edit): (?P<path>\S+) -->\n```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_MARK = re.compile(r"^<!-- (?:file|edit):", re.MULTILINE)
_HUNKS = re.compile(r"^@@.*\n", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A whole file, or an edit of one: hunks of lines that begin with ` `, `-` or `+`, separated by `@@`."""

    kind: Literal["file", "edit"]
    path: str
    text: str


def read_blocks(document: Path) -> list[Block]:
    """The blocks of a document, in its order.

    Raises:
        ValueError: one is marked but cannot be read, so that it would silently be left out.
    """
    text = document.read_text()
    found = [
        Block(kind=match["kind"], path=match["path"], text=match["text"])  # type: ignore[arg-type]
        for match in _BLOCK.finditer(text)
    ]
    if len(found) != len(_MARK.findall(text)):
        raise ValueError(f"{document}: a block is marked, but is not one comment followed by one fenced block")
    return found


def apply(block: Block, folder: Path) -> Path:
    """Write the file, or make the edit, below `folder`; return its path.

    Raises:
        ValueError: a new file exists already, or the lines to change are not there, or not once.
    """
    path = folder / block.path
    if block.kind == "file":
        if path.exists():
            raise ValueError(f"{block.path} is a new file in the document, but exists")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
        return path
    content = path.read_text()
    for hunk in _HUNKS.split(block.text):
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in " -")
        after = "".join(line[1:] for line in lines if line[0] in " +")
        if content.count(before) != 1:
            raise ValueError(f"{block.path} holds these lines {content.count(before)} times:\n{before}")
        content = content.replace(before, after)
    path.write_text(content)
    return path
