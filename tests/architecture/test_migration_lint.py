from __future__ import annotations

import subprocess
from pathlib import Path
from typing import get_args

import pytest

from tenantry.tenancy.migrations import Tree
from tests.architecture.migration_lint import (
    EXCLUDED,
    SHARED_EXCLUDED,
    TENANT_EXCLUDED,
    UNACCEPTABLE,
    lint,
    lint_sql,
    report,
)
from tests.architecture.sql import parse, qualified_names, run_squawk
from tests.tenancy.trees import Trees, revision_text

TEAM = "op.execute('CREATE TABLE team (id uuid PRIMARY KEY, name text, code text)')"


@pytest.fixture
def trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trees:
    return Trees(tmp_path, monkeypatch)


def _rules(tree: Tree, sql: str) -> list[str]:
    return [problem.rule for problem in lint_sql(tree, Path("0002_x.py"), sql)]


def _second(trees: Trees, upgrade: str, **options: str) -> list[str]:
    """What is found in a revision after one that makes a table."""
    trees.add("tenant", "0001_a", revision_text("0001", None, upgrade=TEAM))
    trees.add("tenant", "0002_b", revision_text("0002", "0001", upgrade=upgrade, **options))
    return [problem.rule for problem in lint("tenant")]


@pytest.mark.parametrize("tree", get_args(Tree))
def test_the_revisions_keep_the_rules(tree: Tree) -> None:
    assert list(map(str, lint(tree))) == []


def test_squawk_knows_the_rules_that_are_left_out() -> None:
    named = EXCLUDED | SHARED_EXCLUDED | TENANT_EXCLUDED | {"changing-column-type"}
    assert {rule for rule in UNACCEPTABLE if not rule.startswith("tenant-")} <= named | {"syntax-error"}
    # An unknown one is an error, so none of them is left over from an older squawk.
    for rule in named:
        run_squawk("--exclude", rule, sql="SELECT 1;")
    with pytest.raises(subprocess.CalledProcessError):
        run_squawk("--exclude", "no-such-rule", sql="SELECT 1;")


CAUGHT: list[tuple[Tree, str, str]] = [
    ("tenant", "ALTER TABLE team ADD COLUMN n bigint NOT NULL", "adding-required-field"),
    ("tenant", "ALTER TABLE team ADD COLUMN at timestamptz DEFAULT clock_timestamp()", "adding-field-with-default"),
    ("tenant", "ALTER TABLE team ALTER COLUMN name SET NOT NULL", "adding-not-nullable-field"),
    ("tenant", "ALTER TABLE team ALTER COLUMN name TYPE text", "changing-column-type"),
    ("shared", "ALTER TABLE platform.plan ALTER COLUMN name TYPE text", "changing-column-type"),
    ("tenant", "ALTER TABLE team ADD CONSTRAINT c CHECK (n > 1)", "constraint-missing-not-valid"),
    ("tenant", "ALTER TABLE team DROP COLUMN code", "ban-drop-column"),
    ("tenant", "ALTER TABLE team RENAME COLUMN code TO kind", "renaming-column"),
    ("tenant", "ALTER TABLE team RENAME TO crew", "renaming-table"),
    ("tenant", "DROP TABLE team", "ban-drop-table"),
    ("tenant", "ALTER TABLE team DROP CONSTRAINT c", "ban-drop-constraint"),
    ("shared", "DROP TABLE platform.plan", "ban-drop-table"),
    (
        "tenant",
        "UPDATE team SET n = 1; CREATE INDEX CONCURRENTLY i ON team (name)",
        "ban-concurrent-index-creation-in-transaction",
    ),
    ("tenant", "COMMIT", "transaction-nesting"),
    ("tenant", "CREATE TABLE x (", "syntax-error"),
    ("tenant", "CREATE TABLE x (name varchar(20))", "tenant-varchar"),
    ("tenant", "CREATE TABLE x (names varchar[])", "tenant-varchar"),
    ("tenant", "ALTER TABLE team ADD COLUMN x character varying", "tenant-varchar"),
    ("tenant", "ALTER TABLE team ADD COLUMN x char(3)", "tenant-varchar"),
    ("shared", "CREATE TABLE platform.x (name varchar(20))", "prefer-text-field"),
    ("tenant", "CREATE TYPE kind AS ENUM ('a')", "tenant-own-type"),
    ("tenant", "CREATE TYPE pair AS (a int, b int)", "tenant-own-type"),
    ("tenant", "CREATE DOMAIN slug AS text", "tenant-own-type"),
    ("tenant", "CREATE TABLE platform.x (id uuid)", "tenant-qualified-name"),
    ("tenant", "CREATE TABLE x (id uuid REFERENCES public.team (id))", "tenant-qualified-name"),
    ("tenant", 'CREATE INDEX i ON "Other".team (name)', "tenant-qualified-name"),
    ("tenant", "UPDATE platform.tenant SET name = 'x'", "tenant-qualified-name"),
    ("tenant", "INSERT INTO team (id) SELECT id FROM public.team", "tenant-qualified-name"),
    ("tenant", "SELECT platform.emit('x')", "tenant-qualified-name"),
    ("tenant", "SET LOCAL search_path TO elsewhere", "tenant-qualified-name"),
    ("tenant", "GRANT USAGE ON SCHEMA other TO PUBLIC", "tenant-qualified-name"),
    ("tenant", "DO $$ BEGIN PERFORM 1 FROM platform.plan; END $$", "tenant-qualified-name"),
]


@pytest.mark.parametrize(("tree", "sql", "rule"), CAUGHT, ids=lambda value: value.replace(" ", "-"))
def test_what_hurts_tables_that_are_served_is_caught(tree: Tree, sql: str, rule: str) -> None:
    assert rule in _rules(tree, f"{sql};")


ALLOWED: list[tuple[Tree, str]] = [
    ("tenant", "ALTER TABLE team ADD COLUMN code text"),
    ("tenant", "ALTER TABLE team ADD COLUMN n integer NOT NULL DEFAULT 0"),
    ("tenant", "ALTER TABLE team ADD CONSTRAINT c CHECK (n > 1) NOT VALID"),
    ("tenant", "ALTER TABLE team VALIDATE CONSTRAINT c"),
    ("tenant", "ALTER TABLE team ADD CONSTRAINT u UNIQUE (name)"),
    ("tenant", "CREATE INDEX i ON team (name)"),
    ("tenant", "DROP INDEX i"),
    ("tenant", "UPDATE team AS t SET code = t.name WHERE extract(epoch FROM t.at) > 0 AND t.a IS DISTINCT FROM t.b"),
    ("tenant", "UPDATE team SET code = pg_catalog.lower(name)::varchar"),
    ("tenant", "UPDATE team SET name = 'see platform.example'"),
    ("shared", "ALTER TABLE platform.plan ADD CONSTRAINT c CHECK (n > 1)"),
]


@pytest.mark.parametrize(("tree", "sql"), ALLOWED, ids=lambda value: value.replace(" ", "-"))
def test_what_does_not_hurt_is_left_alone(tree: Tree, sql: str) -> None:
    assert _rules(tree, f"{sql};") == []


def test_tables_that_the_step_makes_itself_are_free() -> None:
    sql = "CREATE TABLE x (id uuid); ALTER TABLE x ADD CONSTRAINT c CHECK (true); ALTER TABLE x ALTER id SET NOT NULL;"
    assert _rules("tenant", sql) == []
    assert _rules("tenant", sql.partition(";")[2]) == ["constraint-missing-not-valid", "adding-not-nullable-field"]


def test_a_check_that_is_made_anew_under_its_name_is_no_lost_guarantee() -> None:
    drop, add = "ALTER TABLE t DROP CONSTRAINT c;", "ALTER TABLE t ADD CONSTRAINT {} CHECK (true) NOT VALID;"
    assert _rules("tenant", drop + add.format("c")) == []
    assert _rules("tenant", drop + add.format("d")) == ["ban-drop-constraint"]
    assert _rules("tenant", drop + add.format("c").replace(" t ", " u ")) == ["ban-drop-constraint"]


def test_a_finding_names_its_statement_whatever_stands_before_it() -> None:
    sql = "-- Running upgrade 0001 -> 0002\n\nUPDATE t SET a = 'ä€';\n\nALTER TABLE t\n    DROP COLUMN code;\n"
    (problem,) = lint_sql("tenant", Path("0002_x.py"), sql)
    assert str(problem).splitlines() == [
        "0002_x.py: ban-drop-column: Dropping a column may break existing clients.",
        "    ALTER TABLE t",
        "        DROP COLUMN code;",
    ]


def test_names_are_found_where_postgresql_reads_one() -> None:
    script = parse('CREATE TRIGGER n BEFORE INSERT ON a.t FOR EACH ROW EXECUTE FUNCTION "b".f();')
    (statement,) = script.root.children
    assert sorted(qualified_names(script, statement)) == ['"b".f', "a.t"]


def test_a_reason_lets_a_finding_pass_and_no_other(trees: Trees) -> None:
    accepted = 'accepted = {"ban-drop-column": "no release reads it since 0.3"}'
    assert _second(trees, "op.drop_column('team', 'code')\nop.drop_table('team')", attributes=accepted) == [
        "ban-drop-table"
    ]


def test_what_was_accepted_and_is_not_found_is_to_be_removed(trees: Trees) -> None:
    accepted = 'accepted = {"ban-drop-column": "no release reads it since 0.3"}'
    assert _second(trees, "op.add_column('team', sa.Column('n', sa.Text()))", attributes=accepted) == [
        "unused-accepted"
    ]


def test_no_reason_is_good_enough_for_a_type_that_is_changed_in_place(trees: Trees) -> None:
    accepted = 'accepted = {"changing-column-type": "it is only longer"}'
    upgrade = "op.alter_column('team', 'name', type_=sa.BigInteger())"
    assert _second(trees, upgrade, attributes=accepted) == ["changing-column-type"]


READS = "for row in op.get_bind().execute(sa.text('SELECT id FROM team')):\n    op.execute('SELECT 1')"


def test_logic_in_python_is_not_compiled_and_has_to_say_so(trees: Trees) -> None:
    assert _second(trees, READS) == ["not-compiled"]
    (problem,) = lint("tenant")
    assert problem.text.endswith("logic in Python says `online = True`")


def test_an_online_revision_needs_a_downgrade_as_well(trees: Trees) -> None:
    assert _second(trees, READS, attributes="online = True", downgrade="pass") == ["no-downgrade"]


@pytest.mark.parametrize("downgrade", ["pass", "'''Nothing.'''", "raise NotImplementedError"])
def test_a_revision_without_a_way_back_has_to_say_why(trees: Trees, downgrade: str) -> None:
    assert _second(trees, "op.execute('CREATE TABLE x (id uuid)')", downgrade=downgrade) == ["no-downgrade"]


def test_a_revision_that_says_why_there_is_no_way_back_keeps_the_rules(trees: Trees) -> None:
    attributes = "irreversible = 'the plain tokens are gone'"
    downgrade = "raise NotImplementedError(irreversible)"
    assert _second(trees, "op.execute('UPDATE team SET code = NULL')", attributes=attributes, downgrade=downgrade) == []


def test_the_report_lists_what_is_wrong_and_fails(trees: Trees) -> None:
    _second(trees, "op.drop_table('team')", downgrade="pass")
    text, code = report()
    assert code == 1
    path = trees.folder / "tenant/versions/0002_b.py"
    assert text.splitlines() == [
        f'{path}: no-downgrade: downgrade() does nothing: write one, or say `irreversible = "why"` and raise it there',
        f"{path}: ban-drop-table: Dropping a table may break existing clients.",
        "    DROP TABLE team;",
        "1 of 2 revisions break the rules: 2 problems",
    ]


def test_without_squawk_nothing_passes(trees: Trees, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.add("tenant", "0001_a", revision_text("0001", None))
    monkeypatch.setattr("tests.architecture.sql.sysconfig.get_path", lambda _: str(tmp_path))
    text, code = report()
    assert (code, "squawk is missing: `make install` installs" in text) == (2, True)


def test_a_tree_that_is_no_line_fails(trees: Trees) -> None:
    for number in ("0001", "0002"):
        trees.add("tenant", number, revision_text(number, None))
    text, code = report()
    assert (code, "has 2 heads" in text) == (2, True)
