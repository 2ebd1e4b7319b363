"""Write the tables of the chart's values into its README, from the comments in values.yaml.

    python scripts/chart_values.py [--check]

A key is described by the comment right above it that begins with `# --`; more lines of the comment go on with it. A
key without one is a group, and what is in it is described. `--check` writes nothing and ends with 1 where the README
says something else than it should.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

CHART = Path(__file__).parent.parent / "helm" / "tenantry"
BEGIN, END = "<!-- values: written by scripts/chart_values.py -->", "<!-- end of values -->"

KEY = re.compile(r"^(?P<indent> *)(?P<name>[A-Za-z][\w.-]*):(?: |$)")
COMMENT = re.compile(r"^(?P<indent> *)#(?P<text>.*)$")


class Value(NamedTuple):
    """A value that can be set: its path with dots, what it is by default, and what it is for."""

    path: str
    default: object
    description: str


def read_values(text: str) -> list[Value]:
    """The described values of a values.yaml, in its order.

    Raises:
        ValueError: A value has no description, and is in none that has one.
    """
    return list(_described(yaml.safe_load(text), "", _comments(text)))


def _described(values: object, prefix: str, comments: dict[str, str]) -> Iterator[Value]:
    if not isinstance(values, dict) or not values:
        raise ValueError(f"{prefix.rstrip('.')} has no description: write `# -- …` above it")
    for name, value in values.items():
        path = f"{prefix}{name}"
        if path in comments:
            yield Value(path, value, comments[path])
        else:
            yield from _described(value, f"{path}.", comments)


def _comments(text: str) -> dict[str, str]:
    """The comments that begin with `# --`, by the path of the key below."""
    found: dict[str, str] = {}
    comment: list[str] = []
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        if match := COMMENT.match(line):
            said = match["text"].strip()
            if said.startswith("-- "):
                comment = [said.removeprefix("-- ")]
            elif comment:
                comment.append(said)
            continue
        if match := KEY.match(line):
            indent = len(match["indent"])
            while path and path[-1][0] >= indent:
                path.pop()
            path.append((indent, match["name"]))
            if comment:
                found[".".join(name for _, name in path)] = " ".join(comment)
        comment = []
    return found


def write_tables(values: list[Value]) -> str:
    """A heading and a table for each of the first names; what has none of its own parts is in the first."""
    groups: dict[str, list[Value]] = {}
    for value in values:
        group, dot, _ = value.path.partition(".")
        groups.setdefault(group if dot else "", []).append(value)
    return "\n".join(
        _table(f"### `{group}`" if group else "### For the whole release", rows) for group, rows in groups.items()
    )


def _table(heading: str, rows: list[Value]) -> str:
    lines = [heading, "", "| value | default | |", "|---|---|---|"]
    for row in rows:
        default = json.dumps(row.default, ensure_ascii=False)
        lines.append(" | ".join((f"| `{row.path}`", f"`{default}`", f"{row.description} |")).replace("||", "\\|\\|"))
    return "\n".join([*lines, ""])


def renew(readme: str, values: str) -> str:
    """The README with the tables of a values.yaml between its two marks."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The README lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n\n{write_tables(read_values(values))}\n{END}{after}"


def main() -> int:
    path = CHART / "README.md"
    written = path.read_text(encoding="utf-8")
    wanted = renew(written, (CHART / "values.yaml").read_text(encoding="utf-8"))
    if wanted == written:
        return 0
    if "--check" in sys.argv[1:]:
        sys.stderr.write("helm/tenantry/README.md is not what values.yaml says: python scripts/chart_values.py\n")
        return 1
    path.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
