from __future__ import annotations

import ast
import asyncio
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import CheckConstraint, Column, Integer, MetaData, Table, Text, Uuid

from tenantry.cli.problems import ExitCode
from tenantry.features import SHARED_METADATA, TENANT_METADATA
from tenantry.tenancy.migrations import Tree, head
from tenantry.tenancy.revisions import revisions
from tests.architecture.migration_lint import lint
from tests.cli.support import ROOT, answer, refused, run
from tests.databases import Template
from tests.tenancy.trees import Trees, revision_text
from tests.tree import forget

HEADS: dict[Tree, str] = {"tenant": head("tenant"), "shared": head("shared")}
NEXT = {tree: f"{int(revision) + 1:04}" for tree, revision in HEADS.items()}


@pytest.fixture
def owner(env: dict[str, str], database_addresses: Template) -> dict[str, str]:
    """The settings of a deployment, the owner's address among them."""
    return env | {"TENANTRY_DATABASE_OWNER_URL": database_addresses.owner_url}


@pytest.fixture
def trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trees]:
    """The project's trees, copied."""
    forget()
    made = Trees(tmp_path / "migrations", monkeypatch)
    made.copy("tenant")
    made.copy("shared")
    yield made
    # The head of a copy must not be taken for the project's by the tests that come after in this process.
    monkeypatch.undo()
    forget()


def _with_more(metadata: MetaData, schema: str | None) -> MetaData:
    """The models, and a table and a column more."""
    copy = MetaData(naming_convention=metadata.naming_convention)
    for table in metadata.sorted_tables:
        table.to_metadata(copy)
    Table(
        "rocket",
        copy,
        Column("id", Uuid, primary_key=True),
        Column("name", Text, nullable=False, index=True),
        CheckConstraint("char_length(name) BETWEEN 1 AND 100", name="name_length"),
        schema=schema,
    )
    table = copy.tables["team" if schema is None else f"{schema}.plan"]
    table.append_column(Column("stages", Integer))
    return copy


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that are ahead of the revisions."""
    monkeypatch.setattr("tenantry.features.TENANT_METADATA", _with_more(TENANT_METADATA, None))
    monkeypatch.setattr("tenantry.features.SHARED_METADATA", _with_more(SHARED_METADATA, "platform"))


def _everything(addresses: Template) -> set[tuple[str, ...]]:
    """Schemas and tables of the database."""

    async def read() -> set[tuple[str, ...]]:
        connection = await asyncpg.connect(addresses.owner_url)
        try:
            rows = await connection.fetch(
                "SELECT n.nspname, coalesce(c.relname, '') FROM pg_namespace n"
                " LEFT JOIN pg_class c ON c.relnamespace = n.oid WHERE n.nspname !~ '^pg_'"
            )
        finally:
            await connection.close()
        return {tuple(row) for row in rows}

    return asyncio.run(read())


@pytest.mark.parametrize("tree", ["tenant", "shared"])
@pytest.mark.usefixtures("changed")
def test_what_the_models_have_more_becomes_the_next_revision(
    owner: dict[str, str], trees: Trees, database_addresses: Template, tree: Tree
) -> None:
    before = _everything(database_addresses)
    told = answer(run("migrate", "new", "Rockets & their stages", "--tree", tree, "--json", env=owner))
    path = trees.folder / tree / "versions" / f"{NEXT[tree]}_rockets_their_stages.py"
    assert told == {"tree": tree, "revision": NEXT[tree], "path": str(path), "differences": 3}
    assert _everything(database_addresses) == before, "the scratch schema is gone, and nothing else has changed"

    written = revisions(tree)[-1]
    assert (written.id, written.down_revision, written.path) == (NEXT[tree], HEADS[tree], path)
    assert (written.doc, written.online, written.irreversible) == ("Rockets & their stages", False, None)
    text = path.read_text()
    table = "team" if tree == "tenant" else "plan"
    for line in (f'op.add_column("{table}", sa.Column("stages", sa.Integer()', "ck_rocket_name_length", "sa.Text()"):
        assert line in text
    assert lint(tree) == []
    functions = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
    assert {ast.unparse(node.returns) for node in functions.values() if node.returns is not None} == {"None"}

    # Once more: the revision makes what the models say.
    again = run("migrate", "new", "Nothing", "--tree", tree, "--json", env=owner)
    assert answer(again) == {"tree": tree, "revision": None, "path": None, "differences": 0}


@pytest.mark.usefixtures("changed")
def test_a_new_revision_is_formatted_and_its_path_is_all_that_is_printed(
    owner: dict[str, str], trees: Trees, monkeypatch: pytest.MonkeyPatch
) -> None:
    # ruff takes the line's length from the project that the file is in.
    shutil.copy(ROOT / "pyproject.toml", trees.folder.parent)
    monkeypatch.chdir(trees.folder.parent)
    result = run("migrate", "new", "Rockets", env=owner)
    assert result.exit_code == 0
    assert result.output == f"migrations/tenant/versions/{NEXT['tenant']}_rockets.py\n"
    ruff = Path(sysconfig.get_path("scripts")) / "ruff"
    for arguments in (["check"], ["format", "--check"]):
        subprocess.run([ruff, *arguments, result.output.strip()], check=True)


@pytest.mark.parametrize("tree", ["tenant", "shared"])
def test_where_nothing_differs_nothing_is_written(owner: dict[str, str], trees: Trees, tree: Tree) -> None:
    before = sorted(trees.folder.rglob("*.py"))
    result = run("migrate", "new", "Nothing", "--tree", tree, env=owner)
    assert result.exit_code == 0
    assert result.stdout == f"Nothing differs between the models and the tree {tree}: nothing was written.\n"
    assert "CHECK constraints of tables that are there are not compared" in result.stderr
    assert sorted(trees.folder.rglob("*.py")) == before


@pytest.mark.usefixtures("changed")
def test_an_empty_revision_is_written_without_a_comparison(owner: dict[str, str], trees: Trees) -> None:
    told = answer(run("migrate", "new", "Fill the stages", "--empty", "--json", env=owner))
    assert told["differences"] == 0
    text = Path(told["path"]).read_text()
    assert "rocket" not in text
    assert "online = False" in text
    assert "irreversible: str | None = None" in text
    # It is to be filled in before anybody can merge it.
    assert [problem.rule for problem in lint("tenant")] == ["no-downgrade"]


def test_the_comparison_is_with_the_revisions_and_not_with_what_is_there(
    owner: dict[str, str], trees: Trees, database_addresses: Template
) -> None:
    async def by_hand() -> None:
        connection = await asyncpg.connect(database_addresses.owner_url)
        try:
            await connection.execute("ALTER TABLE platform.plan DROP COLUMN description")
        finally:
            await connection.close()

    asyncio.run(by_hand())
    told = answer(run("migrate", "new", "Nothing", "--tree", "shared", "--json", env=owner))
    assert told["revision"] is None


def test_a_database_without_the_shared_schema_will_do(
    empty_database: Template, trees: Trees, tmp_path: Path, changed: None
) -> None:
    env = {
        "TENANTRY_HOME": str(tmp_path / "home"),
        "TENANTRY_DATABASE_URL": empty_database.app_url,
        "TENANTRY_DATABASE_OWNER_URL": empty_database.owner_url,
    }
    for tree in ("tenant", "shared"):
        assert answer(run("migrate", "new", "Rockets", "--tree", tree, "--json", env=env))["differences"] == 3


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("!!!", "it needs a letter or a digit"),
        ("", "it needs a letter or a digit"),
        ('A "big" change', "one line, without double quotes and backslashes"),
        ("One\nTwo", "one line"),
        ("C:\\", "one line, without double quotes and backslashes"),
    ],
)
def test_a_message_that_makes_no_file_is_refused(owner: dict[str, str], trees: Trees, message: str, said: str) -> None:
    assert said in refused(run("migrate", "new", message, "--empty", env=owner), ExitCode.USAGE)


def test_a_tree_with_two_heads_gets_no_third(owner: dict[str, str], trees: Trees) -> None:
    trees.add("tenant", "9999_x", revision_text("9999", "0001"))
    trees.add("tenant", "9998_x", revision_text("9998", "0001"))
    assert "heads" in refused(run("migrate", "new", "More", env=owner), ExitCode.USAGE)


def test_it_needs_the_owner(env: dict[str, str], trees: Trees) -> None:
    result = run("migrate", "new", "More", env=env)
    assert result.exit_code == ExitCode.USAGE
    assert "TENANTRY_DATABASE_OWNER_URL: expected an address" in result.stderr


def test_an_installed_package_says_that_it_takes_a_checkout(
    owner: dict[str, str], trees: Trees, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = trees.folder.parent
    monkeypatch.setattr("tenantry.tenancy.autogenerate.tenantry.__file__", str(package / "__init__.py"))
    said = refused(run("migrate", "new", "More", env=owner), ExitCode.USAGE)
    assert "new ones are written in a checkout of the sources" in said


def test_asking_what_it_does_imports_no_orm() -> None:
    code = (
        "import sys; from tenantry.cli.migrate_new import new; "
        "print([name for name in ('sqlalchemy', 'alembic', 'asyncpg') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
