"""Trees of revisions that a test writes itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from textwrap import indent

import pytest

from tenantry.tenancy.migrations import Tree, compile_script
from tests.architecture.rules import ROOT

__all__ = ("Trees", "revision_text")

_MODULES = ("migrations", "revisions", "autogenerate")


def revision_text(
    number: str,
    after: str | None,
    *,
    upgrade: str = "op.execute('CREATE TABLE box (id int)')",
    downgrade: str | None = "op.execute('DROP TABLE box')",
    attributes: str = "",
) -> str:
    """A revision's module; without a `downgrade`, it has no such function."""
    text = (
        f'"""Step {number}."""\n\nimport sqlalchemy as sa\nfrom alembic import op\n\n'
        f"revision = {number!r}\ndown_revision = {after!r}\n{attributes}\n\n"
        f"def upgrade() -> None:\n{indent(upgrade, '    ')}\n"
    )
    return text if downgrade is None else f"{text}\n\ndef downgrade() -> None:\n{indent(downgrade, '    ')}\n"


class Trees:
    """Both trees in a folder of the test's own, with the project's environments and nothing else."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        for tree in ("shared", "tenant"):
            (folder / tree / "versions").mkdir(parents=True)
            for name in ("env.py", "script.py.mako"):
                shutil.copy(ROOT / "migrations" / tree / name, folder / tree)
        for module in _MODULES:
            monkeypatch.setattr(f"tenantry.tenancy.{module}.migrations_folder", lambda: folder)
        # Kept by name of tree and revision, which are the same in the next test.
        monkeypatch.setattr("tests.architecture.migration_lint.compile_script", compile_script.__wrapped__)

    def add(self, tree: Tree, name: str, text: str) -> Path:
        """Write a revision's file."""
        path = self.folder / tree / "versions" / f"{name}.py"
        path.write_text(text, encoding="utf-8")
        return path

    def copy(self, tree: Tree) -> None:
        """Put the project's own revisions there."""
        for path in (ROOT / "migrations" / tree / "versions").glob("*.py"):
            shutil.copy(path, self.folder / tree / "versions")
