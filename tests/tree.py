"""The tenant tree as a later release has it: this release's revisions, and more that the test writes.

The fixture `tenant_tree` (import it into a conftest.py) puts it in force in this process until the test's end. For
other processes, `python -m tests.tree FOLDER migrate tenants …` is the command line of the release with that folder.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenantry.cli import main
from tenantry.platform.rollouts import planning
from tenantry.tenancy import autogenerate, migrations, revision_files, revisions
from tests.architecture.rules import ROOT
from tests.tenancy.trees import revision_text

__all__ = ("COLUMN_AND_INDEX", "TenantTree", "come_into_force", "program_of", "tenant_tree")

COLUMN_AND_INDEX = """
op.add_column("team", sa.Column("color", sa.Text(), nullable=True))
op.create_index("ix_team_color", "team", ["color"])
""".strip()
"""The body of a revision as most are."""

_KNOW_THE_FOLDER = (migrations, revisions, autogenerate, revision_files)


class TenantTree:
    """A copy of the project's trees in `folder`, to which revisions are added."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for tree in ("shared", "tenant"):
            shutil.copytree(ROOT / "migrations" / tree, folder / tree, ignore=shutil.ignore_patterns("__pycache__"))
        self.base = revision_files.read_line_in(folder / "tenant")[-1]
        """The head of this release's own tree."""

    @property
    def head(self) -> str:
        return revision_files.read_line_in(self.folder / "tenant")[-1]

    def add(
        self,
        upgrade: str = COLUMN_AND_INDEX,
        *,
        online: bool = False,
        irreversible: str | None = None,
        downgrade: str = "pass",
    ) -> str:
        """Add the next revision, whose `upgrade()` has this body (`op` and `sa` are there), and return its id."""
        before = self.head
        number = f"{int(before) + 1:04}"
        attributes = "online = True\n" if online else ""
        if irreversible is not None:
            attributes += f"irreversible = {irreversible!r}\n"
        text = revision_text(number, before, upgrade=upgrade, downgrade=downgrade, attributes=attributes)
        (self.folder / "tenant" / "versions" / f"{number}_added.py").write_text(text, encoding="utf-8")
        forget()
        return number

    def remove(self, revision: str) -> None:
        """Take the newest revision away again: the release before, where a database has seen the one after."""
        (self.folder / "tenant" / "versions" / f"{revision}_added.py").unlink()
        forget()


def forget() -> None:
    """What this process knows of the trees, since a release's files never change while it runs."""
    migrations.head.cache_clear()
    migrations.compile_script.cache_clear()
    planning.segments.cache_clear()
    revisions._read.cache_clear()


@pytest.fixture
def tenant_tree(tmp_path: Path) -> Iterator[TenantTree]:
    """A tree of the test's own, in force until its end."""
    tree = TenantTree(tmp_path / "migrations")
    with pytest.MonkeyPatch.context() as patch:
        for module in _KNOW_THE_FOLDER:
            patch.setattr(module, "migrations_folder", lambda: tree.folder)
        forget()
        yield tree
    forget()


def program_of(tree: TenantTree, *arguments: str) -> list[str]:
    """The command line of the release that has this tree, as a program."""
    return [sys.executable, "-m", "tests.tree", str(tree.folder), *arguments]


def come_into_force(folder: Path) -> None:
    """Make this process, for good, one of the release that has these trees."""
    for module in _KNOW_THE_FOLDER:
        vars(module)["migrations_folder"] = lambda: folder
    forget()


if __name__ == "__main__":
    come_into_force(Path(sys.argv.pop(1)))
    main()
