"""The two Alembic trees: `shared`, run once, and `tenant`, run in every tenant's schema.

A new tenant's schema is not migrated step by step: the tenant tree is compiled once per head to one SQL script, which
runs in one round trip.
"""

from __future__ import annotations

import asyncio
import io
import threading
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from alembic import command, context, op
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData
from sqlalchemy.util import await_only

from tenantry.tenancy.revision_files import migrations_folder
from tenantry.tenancy.scope import SHARED_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

__all__ = (
    "NAMING",
    "Tree",
    "alone",
    "compile_script",
    "compile_statements",
    "config",
    "head",
    "migrations_folder",
    "run_environment",
    "upgrade",
)

Tree = Literal["shared", "tenant"]

NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""How the models name their constraints (Advanced Alchemy's `convention`; a test compares them).

Revisions that leave a name out get it from here, so they run without the models: importing those takes a second."""

# Any number will do, as long as nothing else takes the same advisory lock.
_LOCK = 0x7E4A_5EED

# Held while a tree runs on a connection; see `alone`.
_running = threading.Lock()


class _Statements(io.StringIO):
    """What Alembic writes of a compiled tree, piece by piece: it writes one statement at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def write(self, text: str, /) -> int:
        if statement := text.strip():
            self.found.append(statement)
        return len(text)


@contextmanager
def alone() -> Iterator[None]:
    """One tree at a time runs on a connection, in the whole process.

    `alembic.op` is a module whose functions lead to whoever installed itself last. A tree waits for PostgreSQL at every
    statement, and meanwhile another coroutine may begin one: then the first one's next statement would run on the
    other's connection, in another tenant's schema.
    """
    while not _running.acquire(blocking=False):
        # Of asyncio's locks, each belongs to one event loop; this one is everybody's.
        await_only(asyncio.sleep(0.01))
    try:
        yield
    finally:
        _running.release()


@contextmanager
def _aside() -> Iterator[None]:
    """Give back to a tree that waits for PostgreSQL at this moment what compiling takes from it; see `alone`."""
    kept = [(vars(module), dict(vars(module))) for module in (op, context)]
    try:
        yield
    finally:
        for live, before in kept:
            for name in live.keys() - before.keys():
                del live[name]
            live.update(before)


def config(tree: Tree, **attributes: Any) -> Config:
    """Alembic's configuration of one tree; there is no `alembic.ini`."""
    made = Config(output_buffer=attributes.pop("output", None))
    made.set_main_option("script_location", str(migrations_folder() / tree).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    made.attributes.update(attributes)
    return made


@lru_cache
def head(tree: Tree) -> str:
    """The newest revision of a tree.

    Raises:
        alembic.util.CommandError: the tree has several heads.
    """
    found = ScriptDirectory.from_config(config(tree)).get_current_head()
    if found is None:
        raise LookupError(f"the tree {tree!r} has no revision")
    return found


@lru_cache
def compile_script(tree: Tree, start: str = "base", end: str = "head") -> str:
    """The SQL that leads from one revision to another, the change of `alembic_version` included.

    It holds no BEGIN and no COMMIT, names no schema, and expects the search_path to lead to the right one.
    """
    return "".join(f"{statement}\n\n" for statement in compile_statements(tree, start, end))


def compile_statements(tree: Tree, start: str, end: str) -> tuple[str, ...]:
    """The same, as the statements that Alembic was told; comments among them. One may hold several of PostgreSQL's."""
    output = _Statements()
    with _aside():
        command.upgrade(config(tree, output=output), f"{start}:{end}", sql=True)
    return tuple(output.found)


def upgrade(connection: Connection, tree: Tree, revision: str = "head") -> None:
    """Run a tree step by step on `connection`, inside its transaction; for `tenant`, its search_path must be set."""
    if tree == "shared":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {SHARED_SCHEMA}")
    with alone():
        command.upgrade(config(tree, connection=connection), revision)


def _render_item(kind: str, item: Any, _: Any) -> str | Literal[False]:
    """Autogenerated revisions name SQLAlchemy's own types, not Advanced Alchemy's wrappers of them."""
    # With them comes all of Advanced Alchemy, for which `tenantry migrate tenants` would wait half a second in vain.
    from advanced_alchemy.types import GUID, DateTimeUTC

    if kind == "type" and isinstance(item, GUID):
        return "sa.Uuid()"
    if kind == "type" and isinstance(item, DateTimeUTC):
        return "sa.DateTime(timezone=True)"
    return False


def run_environment(context: Any, metadata: MetaData | None = None, *, schema: str | None) -> None:
    """What both trees' `env.py` do.

    Args:
        context: Alembic's context module.
        metadata: the models, if they are to be compared with; `config(tree, metadata=…)` brings them as well.
            Revisions run without.
        schema: the schema of the version table; None for the first of the search_path.
    """
    if metadata is None:
        metadata = context.config.attributes.get("metadata") or MetaData(naming_convention=NAMING)
    options: dict[str, Any] = {
        "target_metadata": metadata,
        "version_table_schema": schema,
        "include_schemas": schema is not None,
        "include_name": lambda name, kind, _: kind != "schema" or name == schema,
        "compare_server_default": True,
        "render_item": _render_item,
    }
    if context.is_offline_mode():
        context.configure(dialect_name="postgresql", literal_binds=True, transactional_ddl=False, **options)
        context.run_migrations()
        return
    connection = context.config.attributes.get("connection")
    if connection is None:
        raise RuntimeError("run `tenantry migrate`; the alembic command has no connection of its own here")
    # The caller's transaction is the one: the ledger, the schema and the version change together or not at all.
    context.configure(connection=connection, transaction_per_migration=False, **options)
    context.run_migrations()
