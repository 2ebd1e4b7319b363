"""`tenantry new-resource` in a copy of the repository: what it writes passes everything that the project asks for."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from tenantry.tenancy.migrations import head
from tests.checkout import ROOT, copy_repository, run_pytest, run_python

ALL = (
    "number:str! amount:decimal due:date? status:draft|sent|paid paid_at:datetime? note:text? count:int open:bool"
    " reference:uuid! weight:decimal?"
)
"""Every type, with and without what it can be."""
ODD = {
    "oddity": "flag:bool",
    "odd_relic": "status:open|closed",
    "synopsis": "taken_on:date! value:int!",
}
"""Names and fields that make the least of a file, or an odd one; and names that no resource of yours has already."""


def _new(copy: Path, name: str, fields: str, *options: str, ends_with: int = 0) -> str:
    arguments = ("-m", "tenantry.cli", "new-resource", name, "--fields", fields, *options)
    return run_python(copy, *arguments, ends_with=ends_with)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with a specimen of all types."""
    folder = copy_repository(tmp_path_factory.mktemp("new-resource"))
    _new(folder, "specimen", ALL)
    return folder


def _texts(folder: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in folder.rglob("*") if path.suffix in {".py", ".txt", ".toml"}}


def _lint(copy: Path) -> None:
    # Without the benchmarks beside them, tests of those would import strangers.
    places = ("src", "migrations", "tests/domain")
    run_python(copy, "-m", "ruff", "check", "--no-cache", *places)
    run_python(copy, "-m", "ruff", "format", "--check", "--diff", "--no-cache", *places)


def test_it_says_what_it_writes_and_writes_that(tmp_path: Path) -> None:
    folder = copy_repository(tmp_path / "copy")
    before = _texts(folder)
    planned = json.loads(_new(folder, "specimen", "number:str", "--dry-run", "--json"))
    assert _texts(folder) == before
    assert planned["written"] is False
    done = json.loads(_new(folder, "specimen", "number:str", "--json"))
    assert done == planned | {"written": True}
    after = _texts(folder)
    assert {str(path.relative_to(folder)) for path in after.keys() - before.keys()} == set(done["created"])
    assert {str(path.relative_to(folder)) for path in before if after[path] != before[path]} == set(done["changed"])
    assert f"migrations/tenant/versions/{int(head('tenant')) + 1:04}_specimens.py" in done["created"]
    # Nothing that is there is written over.
    again = _new(folder, "specimen", "number:str", ends_with=2)
    assert "already" in again
    assert _texts(folder) == after


@pytest.mark.parametrize(
    ("name", "fields", "told"),
    [
        ("team", "name:str", "there is a table 'team' already"),
        ("Invoice", "name:str", "lower-case"),
        ("sheep", "name:string", "is no type"),
        ("specimen", "number", "expected a type"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(tmp_path: Path, name: str, fields: str, told: str) -> None:
    folder = copy_repository(tmp_path / "copy")
    before = _texts(folder)
    assert told in _new(folder, name, fields, ends_with=2)
    assert _texts(folder) == before


def test_what_it_writes_is_lint_free_formatted_and_keeps_the_rules(copy: Path) -> None:
    for name, fields in ODD.items():
        _new(copy, name, fields, *(("--plural", "synopses") if name == "synopsis" else ()))
    _lint(copy)
    contracts = tomllib.loads((copy / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = (one["layers"] for one in contracts if one["name"] == "Domains know each other downwards")
    top = [name.strip() for name in layers[0].split("|")]
    for package in ("specimens", "oddities", "odd_relics", "synopses"):
        assert top.count(f"tenantry.domain.{package}") == 1
    assert "revisions keep the rules" in run_python(copy, "-m", "tests.architecture.migration_lint")
    # The lists that ask a decision of every column: it has taken one that they accept.
    run_pytest(copy, "tests/architecture/test_personal_data.py", "tests/platform/lifecycle/test_marks.py")


@pytest.mark.slow
def test_what_it_writes_is_typed_and_keeps_the_architecture(copy: Path) -> None:
    cache = ROOT / ".mypy_cache" / "new-resource"
    run_python(
        copy,
        "-m",
        "mypy",
        f"--cache-dir={cache}",
        "src/tenantry/domain/specimens",
        "tests/domain/test_specimens.py",
        timeout=300,
    )
    lint = "from importlinter.cli import lint_imports_command as lint; lint(['--no-cache', '--verbose'])"
    assert re.search(r"[1-9]\d* kept, 0 broken", run_python(copy, "-c", lint))


@pytest.mark.slow
def test_what_it_writes_is_migrated_served_and_isolated(copy: Path) -> None:
    files = (
        *("tests/domain/test_specimens.py", "tests/architecture", "tests/tenancy/test_downgrades.py"),
        # Of the lists that know every table: who is in it, and that archives, clones and restored ones have all of it.
        *("tests/platform/lifecycle/test_marks.py", "tests/platform/lifecycle/test_archive.py"),
        "tests/platform/lifecycle/test_restore.py::test_archived_and_restored_a_tenant_is_to_the_byte_what_it_was",
    )
    output = run_pytest(copy, *files, timeout=300)
    assert "skipped" not in output, output
    suite = run_pytest(copy, "tests/isolation", "-k", "specimen", timeout=300)
    assert re.search(r"[2-9]\d passed", suite), suite
