"""What a revision may do to tables that are being served; `python -m tests.architecture.migration_lint` says what not.

Each step is compiled to SQL and read by squawk, whose rules know what PostgreSQL locks and rewrites; tables that the
step makes itself are nobody's yet, and so free. The rules that are the project's own read the same parse. A revision
lets a finding pass with `accepted = {"<rule>": "<why>"}`, but for those that hold in every tenant's schema.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from alembic.util import CommandError

from tenantry.tenancy.migrations import Tree, compile_script
from tenantry.tenancy.revisions import Revision, RevisionError, read_downgrade, revisions
from tests.architecture.rules import ROOT
from tests.architecture.sql import Node, Script, parse, qualified_names, run_squawk

__all__ = ("Problem", "lint", "lint_downgrade", "lint_sql", "report")

# The oldest PostgreSQL that is served: what only a newer one does without a rewrite is no excuse.
_POSTGRES = "16.0"

EXCLUDED = {
    # A step is one transaction. It fails whole, and a repetition begins anew; IF NOT EXISTS would take a table that
    # somebody has made by hand for ours.
    "prefer-robust-stmts",
    # CONCURRENTLY cannot run in a transaction, and the schema, its version and the ledger change in one. A tenant's
    # tables are small, and whoever waits does so for no longer than the lock time-out.
    "require-concurrent-index-creation",
    "require-concurrent-index-deletion",
    "disallowed-unique-constraint",
    # Set by whoever runs the step, on its transaction, together with the search path.
    "require-timeout-settings",
    "require-lock-timeout",
    "require-statement-timeout",
    # Ours count attempts and milliseconds, which have bounds; keys are UUIDs.
    "prefer-bigint-over-int",
    "prefer-bigint-over-smallint",
}

SHARED_EXCLUDED = {
    # The control plane has a row for each tenant or operator: some ten thousand, read in milliseconds. A tenant's
    # table may have millions, and is one of thousands.
    "constraint-missing-not-valid",
    "adding-foreign-key-constraint",
}

TENANT_EXCLUDED = {
    # The project's own rule says the same, with another reason.
    "ban-char-field",
    "prefer-text-field",
}

UNACCEPTABLE = {
    "changing-column-type",
    "syntax-error",
    "tenant-own-type",
    "tenant-qualified-name",
    "tenant-varchar",
}
"""Broken in one tenant's schema, they break the others on the same connection: no reason is good enough."""

SHARED_FUNCTIONS = {"platform.keep_account_directory", "platform.repair_account_directory"}
"""Made for tenants' triggers and revisions: they know the tenant by its schema, and its path does not lead there."""

# Rules on tables that somebody may be using; squawk itself knows just for some that the step has made the table.
_ON_TABLES = ("adding-", "ban-drop-", "changing-", "constraint-", "disallowed-", "renaming-")
_COLUMNS = {"COLUMN", "ADD_COLUMN", "SET_TYPE"}
_LENGTHY = {"VARCHAR_TYPE", "CHARACTER_TYPE"}
_OWN_TYPES = {"CREATE_TYPE": "type", "CREATE_DOMAIN": "domain"}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a revision."""

    path: Path
    rule: str
    text: str
    statement: str = ""

    def __str__(self) -> str:
        path = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path
        lines = [f"{path}: {self.rule}: {self.text}", *self.statement.splitlines()]
        return "\n    ".join(lines)


def lint(tree: Tree) -> list[Problem]:
    """Everything that is wrong with a tree's revisions.

    Raises:
        RevisionError: the tree cannot even be read as one.
    """
    return [problem for revision in revisions(tree) for problem in _lint_revision(tree, revision)]


def _lint_revision(tree: Tree, revision: Revision) -> Iterator[Problem]:
    yield from lint_downgrade(revision)
    found: list[Problem] = []
    # Of what runs in Python, nobody knows the SQL before it has run.
    if not revision.online:
        try:
            script = compile_script(tree, revision.down_revision or "base", revision.id)
        except (AttributeError, TypeError, CommandError) as error:
            # Offline there is no connection: `op.get_bind()` is None.
            yield Problem(
                revision.path,
                "not-compiled",
                f"it cannot be compiled to SQL ({error}); logic in Python says `online = True`",
            )
            return
        found = list(lint_sql(tree, revision.path, script))
    used = {problem.rule for problem in found}
    for rule in sorted(revision.accepted.keys() - used):
        yield Problem(revision.path, "unused-accepted", f"nothing is found that `accepted` would let pass as {rule!r}")
    for problem in found:
        if problem.rule not in revision.accepted or (tree == "tenant" and problem.rule in UNACCEPTABLE):
            yield problem


def lint_downgrade(revision: Revision) -> Iterator[Problem]:
    """A way back, or the reason why there is none; whether it leads back, a test tries on a database."""
    if revision.irreversible is None and (downgrade := read_downgrade(revision.path)) != "real":
        has = {"missing": "there is no downgrade()", "raises": "downgrade() only raises"}.get(
            downgrade, "downgrade() does nothing"
        )
        yield Problem(
            revision.path, "no-downgrade", f'{has}: write one, or say `irreversible = "why"` and raise it there'
        )


def lint_sql(tree: Tree, path: Path, sql: str) -> Iterator[Problem]:
    """What is wrong with one step, in the order of its statements."""
    # What comes before the first step makes Alembic's own table, in which its version is a varchar.
    script = parse(sql[max(sql.find("-- Running upgrade"), 0) :])
    excluded = EXCLUDED | (SHARED_EXCLUDED if tree == "shared" else TENANT_EXCLUDED)
    findings = _squawk(script, path)
    unique = {statement for rule, statement, _ in findings if rule == "disallowed-unique-constraint"}
    remade, own = _remade_constraints(script), _on_own_tables(script)
    for rule, statement, text in findings:
        if rule in excluded or (rule.startswith(_ON_TABLES) and statement in own):
            continue
        if rule == "constraint-missing-not-valid" and statement in unique:
            continue  # of a UNIQUE, which knows no NOT VALID
        if rule == "ban-drop-constraint" and statement in remade:
            continue  # a CHECK on a few words, which gets another word
        yield Problem(path, rule, text, statement)
    if tree == "tenant":
        yield from _lint_tenant(path, script)


def _squawk(script: Script, path: Path) -> list[tuple[str, str, str]]:
    """Rule, statement and text of all that squawk finds."""
    arguments = ("--pg-version", _POSTGRES, "--assume-in-transaction", "--reporter", "json")
    output = run_squawk(*arguments, "--stdin-filepath", path.with_suffix(".sql").name, sql=script.sql)
    return [
        (
            item["rule_name"],
            script.statement_at(item["line"], item["column"]),
            " ".join(filter(None, (item["message"], item["help"]))),
        )
        for item in json.loads(output)
    ]


def _on_own_tables(script: Script) -> set[str]:
    """Statements on tables that the same step has made before."""
    made: set[str] = set()
    found: set[str] = set()
    for statement in script.root.children:
        if statement.kind == "CREATE_TABLE":
            made.update(script.text(node) for node in statement.find({"TABLE_NAME"}))
        elif statement.kind == "ALTER_TABLE" and _table(script, statement) in made:
            found.add(script.text(statement))
    return found


def _table(script: Script, statement: Node) -> str:
    """What an ALTER TABLE alters."""
    return next((script.text(node) for node in statement.find({"TABLE_RELATION_NAME"})), "")


def _remade_constraints(script: Script) -> set[str]:
    """Statements that drop a constraint which the same step adds again, under its name, to the same table."""
    dropped: dict[tuple[str, str], str] = {}
    remade: set[str] = set()
    for statement in script.root.children:
        if statement.kind != "ALTER_TABLE":
            continue
        table = _table(script, statement)
        for node in statement.find({"CONSTRAINT_NAME_REF", "CONSTRAINT_NAME"}):
            key = (table, script.text(node))
            if node.kind == "CONSTRAINT_NAME_REF":
                dropped[key] = script.text(statement)
            elif key in dropped:
                remade.add(dropped[key])
    return remade


def _lint_tenant(path: Path, script: Script) -> Iterator[Problem]:
    for statement in script.root.children:
        text = script.text(statement)
        if statement.kind in _OWN_TYPES:
            yield Problem(
                path,
                "tenant-own-type",
                f"a {_OWN_TYPES[statement.kind]} has an OID of its own in every tenant's schema, which drivers cache:"
                " text with a CHECK",
                text,
            )
        if any(True for column in statement.find(_COLUMNS) for _ in column.find(_LENGTHY)):
            yield Problem(path, "tenant-varchar", "strings are `text` with a CHECK on the length", text)
        for name in qualified_names(script, statement):
            if name in SHARED_FUNCTIONS:
                continue
            yield Problem(
                path, "tenant-qualified-name", f"{name}: the search path alone leads to the tenant's schema", text
            )


def report() -> tuple[str, int]:
    """What is wrong with both trees, and the exit code."""
    count = 0
    problems: list[Problem] = []
    try:
        for tree in get_args(Tree):
            count += len(revisions(tree))
            problems += lint(tree)
    except (RevisionError, FileNotFoundError, subprocess.CalledProcessError) as error:
        return f"The revisions cannot be linted: {error}", 2
    if not problems:
        return f"{count} revisions keep the rules", 0
    files = len({problem.path for problem in problems})
    return "\n".join(
        [*map(str, problems), f"{files} of {count} revisions break the rules: {len(problems)} problems"]
    ), 1


def main() -> None:
    text, code = report()
    sys.stdout.write(f"{text}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
