"""The project's own rules, each a function from a parsed file to what breaks it.

They hold what neither ruff nor import-linter can say; `test_rules.py` shows each of them a violation.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = (
    "EXEMPT",
    "ROOT",
    "SOURCE_RULES",
    "TENANT_MIGRATION_RULES",
    "Found",
    "Source",
    "broad_silence",
    "composed_sql",
    "describe",
    "ends_transaction",
    "imports_inside_function",
    "python_files",
    "raw_redis_key",
    "undocumented_handler",
    "unsafe_column_type",
)

ROOT = Path(__file__).parents[2]

Found = Iterator[tuple[int, str]]
"""Lines, and what is wrong there."""


@dataclass(frozen=True)
class Source:
    """A Python file; `path` is relative to the project, with slashes."""

    path: str
    tree: ast.Module

    @classmethod
    def read(cls, path: Path) -> Source:
        return cls(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8")))

    @classmethod
    def of(cls, text: str, path: str = "src/tenantry/domain/teams/service.py") -> Source:
        return cls(path, ast.parse(text))


def python_files(*folders: str) -> list[Path]:
    """All Python files below folders of the project."""
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def describe(source: Source, rule: Callable[[Source], Found]) -> list[str]:
    """What breaks the rule, one line each."""
    return [f"{source.path}:{line}: {text}" for line, text in rule(source)]


def _calls(source: Source) -> Iterator[ast.Call]:
    return (node for node in ast.walk(source.tree) if isinstance(node, ast.Call))


def _called(call: ast.Call) -> str:
    """The last name of what is called: `commit` of `session.commit()`."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


# Where transactions end:
_ENDS_TRANSACTIONS = {
    "src/tenantry/tenancy/database.py",  # the one session module
    "src/tenantry/tenancy/request.py",  # the edge: before the response is sent
    "src/tenantry/cli/shell.py",  # the operator's own prompt, where they type it
}


def ends_transaction(source: Source) -> Found:
    """Only the edge commits: a service that did would leave half a request behind when its other half fails."""
    if source.path in _ENDS_TRANSACTIONS:
        return
    for call in _calls(source):
        if isinstance(call.func, ast.Attribute) and call.func.attr in {"commit", "rollback"}:
            yield call.lineno, f"`.{call.func.attr}()` outside the edge"
        for keyword in call.keywords:
            # Advanced Alchemy's services and repositories commit when they are told to.
            if keyword.arg == "auto_commit" and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value in {False, None}
            ):
                yield call.lineno, "`auto_commit` outside the edge"


_REDIS_VERBS = frozenset(
    [
        "append",
        "decr",
        "decrby",
        "delete",
        "eval",
        "evalsha",
        "exists",
        "expire",
        "get",
        "getdel",
        "getex",
        "getset",
        "hdel",
        "hget",
        "hgetall",
        "hincrby",
        "hmget",
        "hset",
        "incr",
        "incrby",
        "lpop",
        "lpush",
        "lrange",
        "mget",
        "mset",
        "persist",
        "pexpire",
        "publish",
        "pttl",
        "rpop",
        "rpush",
        "sadd",
        "scan_iter",
        "set",
        "setex",
        "setnx",
        "smembers",
        "srem",
        "subscribe",
        "ttl",
        "unlink",
        "xadd",
        "zadd",
        "zrange",
        "zrem",
    ]
)
_REDIS_NAME = re.compile(r"redis|valkey|pipeline|pipe\b", re.IGNORECASE)
_TENANT_KEY = re.compile(r"^\{(t:|platform\})")


def raw_redis_key(source: Source) -> Found:
    """Keys are made by `tenancy/redis.py` alone: one that is put together elsewhere has no tenant in it."""
    if source.path == "src/tenantry/tenancy/redis.py":
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _TENANT_KEY.match(node.value):
            yield node.lineno, "a Redis key's prefix outside tenancy/redis.py"
    for call in _calls(source):
        if not (isinstance(call.func, ast.Attribute) and call.func.attr in _REDIS_VERBS and call.args):
            continue
        if _REDIS_NAME.search(ast.unparse(call.func.value)) and _is_text(call.args[0]):
            yield call.lineno, "a Redis key that tenancy/redis.py has not made"


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_text(node.left) or _is_text(node.right)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


def imports_inside_function(source: Source) -> Found:
    """An import inside a function hides a cycle, and fails at the first request instead of at the start."""
    if source.path.startswith("src/tenantry/cli/"):
        return  # a command imports what it runs when it runs: `tenantry --help` is not to wait for the ORM
    for outer in ast.walk(source.tree):
        if not isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        for node in ast.walk(outer):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            if any(name.partition(".")[0] == "tenantry" for name in names):
                yield node.lineno, "the application imported inside a function"


_MAY_BE_SILENT = {
    "src/tenantry/cli/deployment.py": "an import ahead of time; where the module is used, it fails aloud",
}


def broad_silence(source: Source) -> Found:
    """Whoever catches everything has to say or do something: what is silenced here is found out in production."""
    if source.path in _MAY_BE_SILENT:
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler) and _is_broad(node.type) and all(map(_does_nothing, node.body)):
            yield node.lineno, "every exception caught, and nothing done"
        if isinstance(node, ast.Call) and _called(node) == "suppress" and any(map(_is_broad, node.args)):
            yield node.lineno, "every exception suppressed"


def _is_broad(kind: ast.expr | None) -> bool:
    if isinstance(kind, ast.Tuple):
        return any(map(_is_broad, kind.elts))
    return kind is None or (isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"})


def _does_nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass | ast.Continue) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


_RUNS_SQL = frozenset(
    [
        "copy_from_query",
        "cursor",
        "exec_driver_sql",
        "execute",
        "executemany",
        "fetch",
        "fetchmany",
        "fetchrow",
        "fetchval",
        "prepare",
        "scalar",
        "scalars",
        "stream",
        "text",
    ]
)
_SQL = re.compile(
    r"\s*(?:--[^\n]*\n\s*)*(?:SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE|DROP|ALTER|GRANT|REVOKE|SET|RESET|"
    r"BEGIN|COMMIT|TRUNCATE|COPY|LISTEN|NOTIFY|WITH|DO)\s"
)

# SQL of which parts are put in as text, since DDL takes no parameters; each with what keeps it safe.
_COMPOSES_SQL = {
    "src/tenantry/tenancy/scope.py": "identifiers that a pattern has let through, and integers",
    "src/tenantry/tenancy/bootstrap.py": "names of ours; a database's name and passwords that patterns let through",
    "src/tenantry/platform/provisioning/schema.py": "a schema's name made of a UUID's digits",
    "src/tenantry/platform/deletion/catalog.py": "names made of a UUID's digits, and names that the server has quoted",
    "src/tenantry/platform/backups/drill.py": "a database's name of digits and of letters of ours, or of that pattern",
    "src/tenantry/platform/backups/shared.py": "constants, and names that the server has quoted",
    "src/tenantry/platform/backups/swapping.py": "names of a UUID's digits and a time's; what the server has quoted",
    "src/tenantry/platform/lifecycle/snapshot.py": "names that the server has quoted",
    "src/tenantry/platform/rollouts/migration.py": "a schema's name and ids of a UUID's digits, revisions by pattern",
    "src/tenantry/cli/admin.py": "a database's name that `bootstrap` has let through",
    "src/tenantry/cli/content.py": "a constant's name",
    "migrations/shared/versions/0001_control_plane.py": "table names from the lines above",
    "migrations/shared/versions/0002_lifecycle_and_rollouts.py": "function names from the line above",
}


def composed_sql(source: Source) -> Found:
    """Values go to the database as parameters. Text that is put into SQL is where injection begins."""
    if source.path in _COMPOSES_SQL:
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.JoinedStr):
            if _begins_like_sql(node) and _has_variable(node):
                yield node.lineno, "a variable put into SQL as text"
        elif isinstance(node, ast.Call) and _called(node) in _RUNS_SQL and node.args and _is_composed(node.args[0]):
            found_above = isinstance(node.args[0], ast.JoinedStr) and _begins_like_sql(node.args[0])
            if not found_above:
                yield node.lineno, "a statement put together from text"


def _begins_like_sql(text: ast.JoinedStr) -> bool:
    first = text.values[0] if text.values else None
    return isinstance(first, ast.Constant) and isinstance(first.value, str) and _SQL.match(first.value) is not None


def _has_variable(text: ast.JoinedStr) -> bool:
    """Whether anything but the module's constants, which are in capitals, is put in."""
    return any(
        isinstance(part, ast.FormattedValue) and not (isinstance(part.value, ast.Name) and part.value.id.isupper())
        for part in text.values
    )


def _is_composed(argument: ast.expr) -> bool:
    if isinstance(argument, ast.JoinedStr):
        return _has_variable(argument)
    if isinstance(argument, ast.BinOp) and isinstance(argument.op, ast.Add | ast.Mod):
        return _is_text(argument)
    return isinstance(argument, ast.Call) and _called(argument) in {"format", "format_map", "join"}


_VERBS = frozenset({"get", "post", "put", "patch", "delete", "route"})
_SUMMARY_SAYS_ALL = {"src/tenantry/kernel/http/problem.py": "the pages to which the errors' types lead"}


def undocumented_handler(source: Source) -> Found:
    """Every operation has an id, a summary and a description: clients are generated from the document."""
    if not any(
        isinstance(node, ast.ImportFrom) and node.module == "litestar" and {a.name for a in node.names} & _VERBS
        for node in source.tree.body
    ):
        return
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for decorator in node.decorator_list:
            if not (isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name)):
                continue
            if decorator.func.id not in _VERBS:
                continue
            given = {keyword.arg for keyword in decorator.keywords}
            if node.name.startswith("_") or "include_in_schema" in given:
                continue  # not in the document
            missing = [name for name in ("operation_id", "summary") if name not in given]
            if not ast.get_docstring(node) and source.path not in _SUMMARY_SAYS_ALL:
                missing.append("docstring")
            if missing:
                yield node.lineno, f"the handler {node.name} lacks {', '.join(missing)}"


_FORBIDDEN_TYPES = frozenset(
    [
        "String",
        "Unicode",
        "UnicodeText",
        "VARCHAR",
        "NVARCHAR",
        "CHAR",
        "NCHAR",
        "Enum",
        "ENUM",
        "DOMAIN",
        "CITEXT",
        "AutoString",
    ]
)
_FORBIDDEN_SQL = re.compile(
    r"\b(?:varchar|character\s+varying|bpchar|CREATE\s+TYPE|CREATE\s+DOMAIN|ALTER\s+COLUMN\s+\S+\s+(?:SET\s+DATA\s+)?TYPE)\b",
    re.IGNORECASE,
)


def unsafe_column_type(source: Source) -> Found:
    """In a tenant's schema: text with a CHECK, no type of the schema's own, and no change of a type in place.

    A type that one tenant has and another has not yet makes every prepared statement on a shared connection fail in
    turn; a native enum has one OID per tenant, which drivers cache.
    """
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in _FORBIDDEN_TYPES:
                yield node.lineno, f"the type {node.func.id}"
            if _called(node) == "alter_column" and any(keyword.arg == "type_" for keyword in node.keywords):
                yield node.lineno, "a column's type changed in place"
        elif isinstance(node, ast.Attribute) and node.attr in _FORBIDDEN_TYPES:
            yield node.lineno, f"the type {node.attr}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _FORBIDDEN_SQL.search(node.value):
            yield node.lineno, "a type in SQL that a tenant's schema may not have"


SOURCE_RULES = (
    ends_transaction,
    raw_redis_key,
    imports_inside_function,
    broad_silence,
    composed_sql,
    undocumented_handler,
)
"""For everything that is shipped."""

TENANT_MIGRATION_RULES = (unsafe_column_type,)
"""For the tenants' migrations, besides the others."""

EXEMPT: dict[Callable[[Source], Found], frozenset[str]] = {
    ends_transaction: frozenset(_ENDS_TRANSACTIONS),
    raw_redis_key: frozenset({"src/tenantry/tenancy/redis.py"}),
    broad_silence: frozenset(_MAY_BE_SILENT),
    composed_sql: frozenset(_COMPOSES_SQL),
    undocumented_handler: frozenset(_SUMMARY_SAYS_ALL),
}
"""Files that a rule lets pass, each for the reason beside it."""
