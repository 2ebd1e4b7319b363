"""SQL as squawk reads it: its parse, which is PostgreSQL's grammar, as a tree that rules can walk."""

from __future__ import annotations

import re
import subprocess
import sysconfig
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ("Node", "Script", "parse", "qualified_names", "run_squawk")

_LINE = re.compile(r"( *)([A-Z0-9_]+)@(\d+)\.\.(\d+)(?: .*)?")
# In a function's body, which nobody parses.
_NAMED_SCHEMA = re.compile(r"\b(?:public|platform|t_[0-9a-f]{32})\s*\.", re.IGNORECASE)


@dataclass
class Node:
    """A piece of the text, in bytes, and what it is."""

    kind: str
    start: int
    end: int
    children: list[Node] = field(default_factory=list)

    def find(self, kinds: Container[str]) -> Iterator[Node]:
        """Nodes of these kinds below this one, itself included."""
        if self.kind in kinds:
            yield self
        for child in self.children:
            yield from child.find(kinds)


@dataclass(frozen=True)
class Script:
    """Statements, and their parse."""

    sql: str
    root: Node

    def text(self, node: Node) -> str:
        return self.sql.encode()[node.start : node.end].decode()

    def statement_at(self, line: int, column: int) -> str:
        """The statement at a place, both counted from 0."""
        before = self.sql.split("\n")[:line]
        offset = sum(len(text.encode()) + 1 for text in before) + column
        for node in self.root.children:
            # A finding may be at the comment or the blank line in front of its statement.
            if offset < node.end:
                return self.text(node)
        return ""


def run_squawk(*arguments: str, sql: str) -> str:
    """What squawk prints of `sql`.

    Raises:
        FileNotFoundError: it is not installed in this environment.
        subprocess.CalledProcessError: it failed; that it found something is no failure.
    """
    program = Path(sysconfig.get_path("scripts")) / "squawk"
    if not program.exists():
        raise FileNotFoundError(f"{program} is missing: `make install` installs squawk-cli")
    done = subprocess.run([program, *arguments], input=sql, text=True, capture_output=True, check=False)
    if done.returncode not in {0, 1} or done.stderr:
        raise subprocess.CalledProcessError(done.returncode, program.name, done.stdout, done.stderr)
    return done.stdout


def parse(sql: str) -> Script:
    """The statements as a tree; `root.children` are the statements.

    Raises:
        ValueError: squawk prints its tree in another way than the pinned version does.
    """
    stack: list[Node] = []
    root: Node | None = None
    for line in run_squawk("--debug", "parse", sql=sql).splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            if root is not None and not line.startswith(" "):
                break  # the errors, which the linter reports as well
            raise ValueError(f"squawk's parse has a line that is not understood: {line!r}")
        node = Node(match[2], int(match[3]), int(match[4]))
        del stack[len(match[1]) // 2 :]
        if stack:
            stack[-1].children.append(node)
        elif root is None:
            root = node
        stack.append(node)
    if root is None or root.kind != "SOURCE_FILE" or root.end != len(sql.encode()):
        raise ValueError("squawk's parse is not of the whole text")
    root.children = [node for node in root.children if node.kind not in {"WHITESPACE", "COMMENT", "SEMICOLON"}]
    return Script(sql, root)


def qualified_names(script: Script, statement: Node) -> Iterator[str]:
    """Names with a schema in front, and schemas; PostgreSQL's own catalog, which is in every path, left out.

    A column's table or alias in front of it is none.
    """
    for node in statement.find(
        {"PATH", "PATH_REF", "CALL_EXPR", "SCHEMA", "SCHEMA_REF", "SET", "DOLLAR_QUOTED_STRING"}
    ):
        text = script.text(node)
        kinds = [child.kind for child in node.children]
        if node.kind == "DOLLAR_QUOTED_STRING":
            yield from (match[0] for match in _NAMED_SCHEMA.finditer(text))
        elif node.kind == "SET":
            if re.search(r"\bsearch_path\b|\bschema\b", text, re.IGNORECASE):
                yield text
        elif node.kind in {"SCHEMA", "SCHEMA_REF"}:
            yield text
        elif node.kind == "CALL_EXPR":
            called = node.children[0]
            if called.kind == "FIELD_EXPR" and not _of_the_catalog(script.text(called)):
                yield script.text(called)
        elif "PATH_REF" in kinds and not _of_the_catalog(text):
            yield text


def _of_the_catalog(name: str) -> bool:
    return name.lower().startswith("pg_catalog.")
