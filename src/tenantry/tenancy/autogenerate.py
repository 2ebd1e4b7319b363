"""New revisions: what the models say beyond what a tree leads to, written as the tree's next file.

The tree is run in a scratch schema, in a transaction that is rolled back, so that the comparison is with what the
revisions make and never with what somebody has changed in a database by hand.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import subprocess
import sysconfig
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic.autogenerate import RevisionContext
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

import tenantry
from tenantry.kernel.text import slugify
from tenantry.tenancy.migrations import config, migrations_folder, upgrade
from tenantry.tenancy.revisions import RevisionError, revisions
from tenantry.tenancy.scope import SHARED_SCHEMA

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Connection, MetaData
    from sqlalchemy.ext.asyncio import AsyncEngine

    from tenantry.tenancy.migrations import Tree

__all__ = ("NewRevision", "NoCheckoutError", "check_checkout", "next_number", "write_revision")

# As long as Alembic's own limit, so that a sentence makes a name that can still be typed.
_SLUG_LENGTH = 40
# Random: a second process that does the same would wait for this one's transaction.
_SCRATCH = f"scratch_{secrets.token_hex(8)}"


class NoCheckoutError(RevisionError):
    """There is no place for a new revision: the trees are inside an installed package."""


@dataclass(frozen=True, slots=True)
class NewRevision:
    """A file that was written."""

    id: str
    path: Path
    differences: int
    """How many changes it makes; 0 for an empty one."""


async def write_revision(
    engine: AsyncEngine, tree: Tree, message: str, metadata: MetaData, *, empty: bool = False
) -> NewRevision | None:
    """Write the revision that leads from the tree's head to `metadata`; None if nothing differs.

    CHECK constraints, triggers, functions and privileges of tables that are there already are not compared. Alembic
    keeps its environment in module globals, so nothing else may run a tree in this process meanwhile.

    Args:
        engine: the owner's (`owner_engine`), on a database in which `tenantry bootstrap` has made the roles.
        tree: which tree gets it.
        message: what it does, on one line: its docstring, and the name of its file.
        metadata: what the models declare of that tree.
        empty: compare nothing, and write one without any change, to be filled in by hand.

    Raises:
        NoCheckoutError: this is an installed package.
        RevisionError: the message makes no name, or the tree is not as it has to be.
        OSError: the file cannot be written.
        subprocess.CalledProcessError: ruff, which formats it where it is installed, cannot read what was written.
        sqlalchemy.exc.DBAPIError: a revision of the tree fails, or the address is not the owner's.
    """
    check_checkout()
    _check_message(message)
    number = next_number(tree)
    async with engine.connect() as connection:
        # Closed without a commit, so everything that was done in it is undone.
        written = await connection.run_sync(_write, tree, number, message, metadata, empty)
    if written is not None:
        await asyncio.to_thread(_tidy, written.path)
    return written


def _write(
    connection: Connection, tree: Tree, number: str, message: str, metadata: MetaData, empty: bool
) -> NewRevision | None:
    made = config(tree, connection=connection)
    # Alembic tells stdout what it writes; that is the caller's to do.
    made.cmd_opts = Namespace(quiet=True)
    made.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    made.set_main_option("truncate_slug_length", str(_SLUG_LENGTH))
    directory = ScriptDirectory.from_config(made)
    arguments: dict[str, Any] = dict.fromkeys(("splice", "branch_label", "version_path", "depends_on", "sql"))
    context = RevisionContext(made, directory, arguments | {"message": message, "rev_id": number, "head": "head"})
    differences = 0
    if not empty:

        def compare(revision: Any, migration: MigrationContext) -> list[Any]:
            migration.opts["target_metadata"] = metadata
            context.run_autogenerate(revision, migration)
            return []

        # What `alembic revision --autogenerate` does, but for whose metadata it is and for what becomes of no change.
        _make_scratch(connection, tree)
        with EnvironmentContext(made, directory, fn=compare, template_args=context.template_args):
            directory.run_env()
        operations = context.generated_revisions[0].upgrade_ops
        differences = 0 if operations is None else len(operations.as_diffs())
        if not differences:
            return None
    (script,) = context.generate_scripts()
    if script is None:
        raise RevisionError(f"alembic does not take {number!r} for a revision of the tree {tree!r}")
    return NewRevision(id=number, path=Path(script.path), differences=differences)


def _make_scratch(connection: Connection, tree: Tree) -> None:
    """The tree's head in a schema of its own, for as long as the transaction lasts, which nobody commits."""
    if connection.scalar(text("SELECT to_regnamespace(:name)"), {"name": SHARED_SCHEMA}) is not None:
        # Revisions of the shared tree name their schema, so the one that is there steps aside; nobody else sees it do
        # so before a commit, which never comes, and none of its tables is locked.
        connection.exec_driver_sql(f"ALTER SCHEMA {SHARED_SCHEMA} RENAME TO {_SCRATCH}_aside")
    if tree == "tenant":
        # Triggers of tenants' tables call functions of the shared schema: of this release's, whatever is there.
        upgrade(connection, "shared")
        connection.exec_driver_sql(f"CREATE SCHEMA {_SCRATCH}")
        connection.exec_driver_sql(f"SET LOCAL search_path TO {_SCRATCH}")
    upgrade(connection, tree)


def _tidy(path: Path) -> None:
    """Leave out what Alembic says of itself; where there is ruff, format the file as `make check` wants it."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("    # ### ")), encoding="utf-8")
    ruff = Path(sysconfig.get_path("scripts")) / "ruff"
    if not ruff.exists():
        return
    # Alembic writes long lines, and imports that nothing uses.
    for arguments in (("check", "--fix", "--select", "F401,I"), ("format",)):
        subprocess.run([ruff, *arguments, "--quiet", path], check=True, capture_output=True)  # noqa: S603 - ours


def check_checkout() -> None:
    """Refuse to write into an installed package.

    Raises:
        NoCheckoutError: this is one.
    """
    if migrations_folder().is_relative_to(Path(tenantry.__file__).parent):
        raise NoCheckoutError(
            "this is an installed package, whose revisions are not to be added to: new ones are written in a checkout "
            "of the sources, which has `migrations/`, and come with the next release"
        )


def _check_message(message: str) -> None:
    if not message.isprintable() or '"' in message or "\\" in message:
        raise RevisionError("the message becomes a docstring: one line, without double quotes and backslashes")
    if not slugify(message):
        raise RevisionError("the message becomes the file's name as well: it needs a letter or a digit")


def next_number(tree: Tree) -> str:
    """What a tree's next revision is called.

    Raises:
        RevisionError: its head has no number.
    """
    newest = revisions(tree)[-1].id if revisions(tree) else "0000"
    if not re.fullmatch(r"[0-9]{4}", newest):
        raise RevisionError(
            f"the newest revision of the tree {tree!r} is {newest!r}, which is no number of four digits"
        )
    return f"{int(newest) + 1:04}"
