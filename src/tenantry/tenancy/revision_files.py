"""Where the trees are, and the order of their revisions, without importing Alembic.

`tenantry migrate tenants` mostly finds that there is nothing to do. Alembic and what a tree's `env.py` imports take two
seconds to say so, the files' first lines take a millisecond. A test compares both answers.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import tenantry

__all__ = ("HAS_SCHEMA", "UnreadableTree", "migrations_folder", "read_line", "read_line_in")

HAS_SCHEMA = "t.revision IS NOT NULL AND t.archive_key IS NULL AND t.status <> 'purged'"
"""Which tenants, `t`, have a schema to migrate.

A tenant that is being made has none before it is active, an archived one none while its data lie in the storage. A
suspended or deleted one is migrated like the others: it may be resumed, or undeleted, at any moment.
"""

_REVISION = re.compile(r"""^revision(?:\s*:[^=\n]+)?\s*=\s*["']([^"'\\\n]+)["']\s*(?:\#.*)?$""", re.MULTILINE)
_DOWN = re.compile(r"""^down_revision(?:\s*:[^=\n]+)?\s*=\s*(?:None|["']([^"'\\\n]+)["'])\s*(?:\#.*)?$""", re.MULTILINE)


class UnreadableTree(Exception):  # noqa: N818 - Alembic may well read it, and knows what is wrong if not
    """The files are not as simple as this module expects them: ask `tenantry.tenancy.revisions`."""


def migrations_folder() -> Path:
    """Where the trees are: inside an installed package, or beside the sources in a checkout."""
    package = Path(tenantry.__file__).parent
    installed = package / "_migrations"
    return installed if installed.is_dir() else package.parents[1] / "migrations"


def read_line(tree: Literal["shared", "tenant"]) -> tuple[str, ...]:
    """The ids of a tree's revisions, from the first to the head.

    Raises:
        UnreadableTree: a file does not say once, on one line each, what it is and what it follows; or the files do not
            make one line.
        OSError: a file cannot be read.
    """
    return read_line_in(migrations_folder() / tree)


def read_line_in(folder: Path) -> tuple[str, ...]:
    """The same of the tree in `folder`."""
    after: dict[str | None, str] = {}
    for path in (folder / "versions").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        revisions, downs = _REVISION.findall(text), _DOWN.findall(text)
        if len(revisions) != 1 or len(downs) != 1:
            raise UnreadableTree(f"{path}: expected one `revision` and one `down_revision`")
        if after.setdefault(downs[0] or None, revisions[0]) != revisions[0]:
            raise UnreadableTree(f"{path}: another revision follows {downs[0] or 'nothing'!r} as well")
    line: list[str] = []
    while (following := after.pop(line[-1] if line else None, None)) is not None:
        line.append(following)
    if after or not line:
        raise UnreadableTree(f"{folder} is not one line of revisions")
    return tuple(line)
