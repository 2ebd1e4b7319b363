"""The worked example of docs/add-a-resource.md, block by block, in a copy of the repository."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from tenantry.tenancy.migrations import head
from tests.checkout import ROOT, copy_repository, run_pytest, run_python
from tests.databases import Template
from tests.docs.blocks import DOCS, Block, apply, read_blocks

DOCUMENT = DOCS / "add-a-resource.md"
pytestmark = pytest.mark.skipif(
    (ROOT / "src/tenantry/domain/projects").exists(), reason="this repository has projects: it followed the document"
)
_REVISION = re.compile(r"migrations/tenant/versions/(\d{4})_(\w+)\.py")


def _counted_on(block: Block) -> Block:
    """The migration, numbered after the tree's head: what the document asks of a reader who comes later."""
    match = _REVISION.fullmatch(block.path)
    if match is None:
        return block
    number, newest = match[1], head("tenant")
    before = f"{int(number) - 1:04}"
    after = f"{int(newest) + 1:04}"
    text = block.text.replace(f'down_revision = "{before}"', f'down_revision = "{newest}"')
    text = text.replace(f'revision = "{number}"', f'revision = "{after}"', 1)
    text = text.replace(f"Revision: {number}\nAfter: {before}", f"Revision: {after}\nAfter: {newest}")
    return replace(block, path=block.path.replace(number, after), text=text)


def _apply_to_copy(folder: Path, blocks: Iterable[Block]) -> Path:
    """The repository in `folder`, with blocks of the document applied."""
    copy_repository(folder)
    for block in blocks:
        apply(_counted_on(block), folder)
    return folder


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with the document applied."""
    return _apply_to_copy(tmp_path_factory.mktemp("add-a-resource"), read_blocks(DOCUMENT))


def _files() -> list[str]:
    """What is of Python."""
    paths = [_counted_on(block).path for block in read_blocks(DOCUMENT)]
    return [path for path in paths if path.endswith(".py")]


def test_the_document_is_one_package_two_entries_one_migration_and_one_test() -> None:
    blocks = read_blocks(DOCUMENT)
    package = {f"src/tenantry/domain/projects/{name}.py" for name in ("models", "schemas", "service", "controller")}
    package.add("src/tenantry/domain/projects/__init__.py")
    others = {block.path for block in blocks} - package
    assert package <= {block.path for block in blocks}
    assert {path for path in others if not _REVISION.fullmatch(path)} == {
        "pyproject.toml",
        "src/tenantry/features.py",
        "tests/domain/test_projects.py",
        "tests/isolation/matrix.txt",
        "tests/platform/lifecycle/test_marks.py",
    }
    assert [block.path for block in blocks if block.kind == "edit"] == [
        "tests/platform/lifecycle/test_marks.py",
        "src/tenantry/features.py",
        "pyproject.toml",
        "tests/isolation/matrix.txt",
    ]


def test_the_command_of_the_document_writes_the_migration_that_it_shows(
    tmp_path: Path, database_addresses: Template
) -> None:
    (shown,) = (block for block in read_blocks(DOCUMENT) if _REVISION.fullmatch(block.path))
    command = re.findall(r"^\.venv/bin/tenantry (migrate new .+)$", DOCUMENT.read_text(), re.MULTILINE)
    assert len(command) == 1
    others = (block for block in read_blocks(DOCUMENT) if block.path != shown.path)
    folder = _apply_to_copy(tmp_path / "copy", others)
    printed = run_python(
        folder,
        "-m",
        "tenantry.cli",
        *shlex.split(command[0]),
        TENANTRY_HOME=str(tmp_path / "home"),
        TENANTRY_DATABASE_URL=database_addresses.app_url,
        TENANTRY_DATABASE_OWNER_URL=database_addresses.owner_url,
    )
    expected = _counted_on(shown)
    assert printed == f"{expected.path}\n"
    written = (folder / expected.path).read_text()
    assert _undated(written) == _undated(expected.text)


def _undated(text: str) -> str:
    """A revision without the day on which it was written."""
    return re.sub(r"^Written: \d{4}-\d\d-\d\d$", "", text, count=1, flags=re.MULTILINE)


def test_the_new_migration_keeps_the_rules(copy: Path) -> None:
    assert "revisions keep the rules" in run_python(copy, "-m", "tests.architecture.migration_lint")


@pytest.mark.slow
def test_the_resource_is_migrated_served_and_isolated(copy: Path) -> None:
    output = run_pytest(copy, "tests/docs/probe_add_a_resource.py", "tests/domain/test_projects.py")
    assert re.search(r"\b1[5-9] passed", output), output
    assert "skipped" not in output
    run_pytest(copy, "tests/architecture", "tests/platform/lifecycle/test_marks.py")


@pytest.mark.slow
def test_the_isolation_suite_finds_the_new_routes(copy: Path) -> None:
    suite = "tests/isolation/test_routes.py"
    names = run_pytest(copy, suite, "--collect-only")
    for method in ("GET", "PATCH", "DELETE"):
        route = f"{method} /api/projects/{{project_id}}"
        assert f"test_another_tenants_ids_are_those_of_nothing[{route}]" in names, names
    output = run_pytest(copy, "tests/isolation", "-k", "project", timeout=300)
    assert "skipped" not in output, output


def test_the_new_files_are_lint_free_and_formatted(copy: Path) -> None:
    run_python(copy, "-m", "ruff", "check", "--no-cache", *_files())
    run_python(copy, "-m", "ruff", "format", "--check", "--diff", "--no-cache", *_files())


@pytest.mark.slow
def test_the_new_files_are_typed_and_keep_the_import_contracts(copy: Path) -> None:
    # A cache of its own: one for both sets of paths would be emptied by each run of the other.
    cache = ROOT / ".mypy_cache" / "add-a-resource"
    package = [path for path in _files() if "versions" not in path]
    run_python(copy, "-m", "mypy", f"--cache-dir={cache}", *package, timeout=300)
    lint = "from importlinter.cli import lint_imports_command as lint; lint(['--no-cache', '--verbose'])"
    output = run_python(copy, "-c", lint)
    assert re.search(r"[1-9]\d* kept, 0 broken", output), output
