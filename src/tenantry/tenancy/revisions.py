"""What the two trees consist of: their revisions in order, and what each says of itself.

A revision's module may carry, besides what Alembic reads:

- `online = True`: it has logic in Python that reads what is there. It is never compiled to SQL, but run through
  Alembic, tenant by tenant, inside the tenant's scope.
- `irreversible = "why"`: there is no way back; its `downgrade()` does nothing but raise.
- `accepted = {"ban-drop-column": "why"}`: findings of `make check` that were looked at and are meant.
"""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alembic.script import ScriptDirectory
from alembic.util import CommandError

from tenantry.tenancy.migrations import config, migrations_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alembic.script import Script

    from tenantry.tenancy.migrations import Tree

__all__ = (
    "Downgrade",
    "Revision",
    "RevisionError",
    "UnknownRevisionError",
    "path_between",
    "read_downgrade",
    "revisions",
)

Downgrade = Literal["missing", "nothing", "raises", "real"]


class RevisionError(Exception):
    """A tree of revisions is not as it has to be."""


class UnknownRevisionError(RevisionError, LookupError):
    """The tree has no such revision: another release's, most likely."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One step of a tree."""

    id: str
    down_revision: str | None
    """The one before; None for the first."""
    path: Path
    doc: str
    """The first line of the module's docstring."""
    online: bool = False
    irreversible: str | None = None
    accepted: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Rules of the linter that do not apply here, each with the reason."""


def revisions(tree: Tree) -> tuple[Revision, ...]:
    """All revisions of a tree, from the first to the head.

    Raises:
        RevisionError: the tree is not one line, or a revision's attributes are not as this module says.
    """
    versions = migrations_folder() / tree / "versions"
    return _read(tree, tuple((path, path.stat().st_mtime_ns) for path in sorted(versions.glob("*.py"))))


def path_between(tree: Tree, start: str, end: str = "head") -> tuple[Revision, ...]:
    """The revisions to run, in order, on a schema that is at `start` to bring it to `end`.

    Args:
        tree: which one.
        start: the revision that the schema has; `base` for an empty one.
        end: the one that it is to have; `head` for the newest.

    Raises:
        UnknownRevisionError: the tree has no such revision.
        RevisionError: `end` comes before `start`, or the tree is not as it has to be.
    """
    line = revisions(tree)
    places = {revision.id: place for place, revision in enumerate(line, 1)} | {"base": 0, "head": len(line)}
    for name in (start, end):
        if name not in places:
            known = f"{line[0].id} to {line[-1].id}" if line else "no revision at all"
            raise UnknownRevisionError(f"the tree {tree!r} has no revision {name!r}, but {known}")
    if places[start] > places[end]:
        raise RevisionError(f"in the tree {tree!r}, {end!r} comes before {start!r}: that would be a downgrade")
    return line[places[start] : places[end]]


def read_downgrade(path: Path) -> Downgrade:
    """What a revision's `downgrade()` consists of, as it stands in the file.

    `raises` is one that does nothing but raise, `nothing` one of a docstring, `pass` and the like.
    """
    module = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "downgrade"]
    if not functions:
        return "missing"
    # The last one is the one that Python keeps.
    body = [statement for statement in functions[-1].body if not _does_nothing(statement)]
    if not body:
        return "nothing"
    return "raises" if isinstance(body[0], ast.Raise) else "real"


def _does_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Return):
        return statement.value is None or isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


@lru_cache(maxsize=8)
def _read(tree: Tree, _files: tuple[tuple[Path, int], ...]) -> tuple[Revision, ...]:
    # Reading a tree of two files takes 3 ms, which a rollout would spend again for each tenant. A file that has been
    # written meanwhile makes another key.
    try:
        with warnings.catch_warnings():
            # Two branches of development that took the same number: of the two files, Alembic would take either.
            warnings.filterwarnings("error", "Revision .* is present more than once")
            directory = ScriptDirectory.from_config(config(tree))
            heads = directory.get_heads()
            scripts = list(directory.walk_revisions())
    except (CommandError, UserWarning) as error:
        raise RevisionError(f"the tree {tree!r} cannot be read: {error}") from error
    if len(heads) > 1:
        raise RevisionError(
            f"the tree {tree!r} has {len(heads)} heads, {', '.join(sorted(heads))}: give one of them the newest "
            "revision as its `down_revision`, and a number of its own"
        )
    for script in scripts:
        if script.is_branch_point or script.is_merge_point or script.dependencies:
            raise RevisionError(f"{script.path}: a tree is one line, without branches, merges and `depends_on`")
    return tuple(_revision(script) for script in reversed(scripts))


def _revision(script: Script) -> Revision:
    path, module = Path(script.path), script.module
    irreversible: object = getattr(module, "irreversible", None)
    online: object = getattr(module, "online", False)
    if not isinstance(online, bool):
        raise RevisionError(f"{path}: `online` is True or False, not {online!r}")
    if irreversible is not None and not (isinstance(irreversible, str) and irreversible.strip()):
        raise RevisionError(f"{path}: `irreversible` is None, or a text that says why, not {irreversible!r}")
    if irreversible is not None and (downgrade := read_downgrade(path)) != "raises":
        has = {"real": "has a downgrade()", "missing": "has no downgrade()"}.get(
            downgrade, "goes down by doing nothing"
        )
        raise RevisionError(
            f"{path}: it says that it is `irreversible`, and {has}; its downgrade() has to be"
            " `raise NotImplementedError(irreversible)`"
        )
    down: Any = script.down_revision
    return Revision(
        id=script.revision,
        down_revision=down,
        path=path,
        doc=script.doc,
        online=online,
        irreversible=irreversible,
        accepted=_accepted(path, getattr(module, "accepted", {})),
    )


def _accepted(path: Path, accepted: object) -> Mapping[str, str]:
    if not isinstance(accepted, dict) or not all(
        isinstance(text, str) and text.strip() for item in accepted.items() for text in item
    ):
        raise RevisionError(f"{path}: `accepted` is a dict of rules and reasons, not {accepted!r}")
    return dict(accepted)
