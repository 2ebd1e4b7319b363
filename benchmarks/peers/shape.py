"""The shape of a tenant's schema, and how both sides come to the same.

What a migration costs follows from the number of tables, indexes and constraints. The peer's fifteen tables are the
measure; Tenantry's own tree has fewer, so a revision that exists in the benchmark alone adds what is missing. Where it
has more, nothing is taken away, and the difference is part of the result.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import msgspec

from tenantry.tenancy import migrations, revision_files, revisions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import asyncpg
    from sqlalchemy import MetaData

__all__ = ("PEER_SHAPE", "Shape", "column_revision", "filler_revision", "read_shape", "shape_of", "use_migrations")


class Shape(msgspec.Struct, frozen=True):
    """How much there is to make; the table that a migration tool keeps for itself is left out."""

    tables: int
    indexes: int
    """Those of primary keys and unique constraints too."""
    foreign_keys: int
    uniques: int

    def __sub__(self, other: Shape) -> Shape:
        return Shape(*(getattr(self, name) - getattr(other, name) for name in Shape.__struct_fields__))

    def __str__(self) -> str:
        return (
            f"{self.tables} tables, {self.indexes} indexes, {self.foreign_keys} foreign keys, "
            f"{self.uniques} unique constraints"
        )


PEER_SHAPE = Shape(tables=15, indexes=49, foreign_keys=14, uniques=11)

_SHAPE = """
SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = n.oid AND relkind = 'r' AND relname <> ALL($2)) AS tables,
       (SELECT count(*) FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid
         WHERE t.relnamespace = n.oid AND t.relname <> ALL($2)) AS indexes,
       (SELECT count(*) FROM pg_constraint WHERE connamespace = n.oid AND contype = 'f') AS foreign_keys,
       (SELECT count(*) FROM pg_constraint WHERE connamespace = n.oid AND contype = 'u') AS uniques
  FROM pg_namespace n WHERE n.nspname = $1
"""


async def read_shape(connection: asyncpg.Connection[asyncpg.Record], schema: str) -> Shape:
    """What a schema holds, by the catalog.

    Raises:
        LookupError: there is no such schema.
    """
    row = await connection.fetchrow(_SHAPE, schema, ["alembic_version", "django_migrations"])
    if row is None:
        raise LookupError(f"there is no schema {schema}")
    return Shape(**row)


def shape_of(metadata: MetaData) -> Shape:
    """What models come to on PostgreSQL."""
    tables = list(metadata.tables.values())
    kinds = [constraint.__visit_name__ for table in tables for constraint in table.constraints]
    uniques = kinds.count("unique_constraint")
    return Shape(
        tables=len(tables),
        indexes=sum(len(table.indexes) for table in tables) + kinds.count("primary_key_constraint") + uniques,
        foreign_keys=kinds.count("foreign_key_constraint"),
        uniques=uniques,
    )


_HEADER = '''"""{title}."""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{after}"
branch_labels = None
depends_on = None
irreversible = "the databases of a benchmark are thrown away"


def upgrade() -> None:
{body}


def downgrade() -> None:
    raise NotImplementedError(irreversible)
'''

_TABLE = """\
    op.create_table(
        "{table}",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("subject_id", sa.Uuid()),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("body", sa.Text()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_{table}"),
    )"""

_INDEXED = ("subject_id", "name", "status", "digest", "created_at", "updated_at")


def filler_revision(have: Shape, want: Shape, *, after: str, parent: str = "user_account") -> tuple[str, str]:
    """A revision's id and source that brings a tree from one shape to another.

    What is missing is spread over the new tables: their foreign keys lead to `parent`. A number that is reached or
    exceeded already adds nothing.
    """
    missing = want - have
    count = max(0, missing.tables)
    tables = [f"bench_{number}" for number in range(1, count + 1)]
    lines = [_TABLE.format(table=table) for table in tables]
    targets = tables or [parent]
    for number in range(max(0, missing.foreign_keys) if tables else 0):
        table = tables[number % count]
        column = "subject_id" if number < count else f"subject_{number}_id"
        if number >= count:
            lines.append(f'    op.add_column("{table}", sa.Column("{column}", sa.Uuid()))')
        lines.append(
            f'    op.create_foreign_key("fk_bench_{number}", "{table}", "{parent}", ["{column}"], ["id"],'
            ' ondelete="CASCADE")'
        )
    for number in range(max(0, missing.uniques) if tables else 0):
        columns = ("digest", "name", "status")[: number // count + 1]
        lines.append(f'    op.create_unique_constraint("uq_bench_{number}", "{tables[number % count]}", {[*columns]})')
    # Each new table's primary key and each new unique constraint has brought its index.
    indexes = missing.indexes - count - (max(0, missing.uniques) if tables else 0)
    for number in range(max(0, indexes)):
        table = targets[number % len(targets)]
        column = _INDEXED[number // len(targets) % len(_INDEXED)] if tables else "created_at"
        lines.append(f'    op.create_index("ix_bench_{number}", "{table}", ["{column}"])')
    revision = "bench_shape"
    body = "\n".join(lines) or "    pass"
    return revision, _HEADER.format(title="What the peer has more", revision=revision, after=after, body=body)


def column_revision(number: int, *, after: str) -> tuple[str, str]:
    """A revision's id and source: one column and one index on the table of teams."""
    revision, column = f"bench_{number:02}", f"bench_{number}"
    body = (
        f'    op.add_column("team", sa.Column("{column}", sa.Text(), nullable=True))\n'
        f'    op.create_index("ix_team_{column}", "team", ["{column}"])'
    )
    return revision, _HEADER.format(title="A column and its index", revision=revision, after=after, body=body)


def copy_migrations(folder: Path, revisions: Sequence[tuple[str, str]] = ()) -> Path:
    """Copy both trees to `folder` and add revisions to the tenants'."""
    shutil.copytree(revision_files.migrations_folder(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    for revision, source in revisions:
        add_revision(folder, revision, source)
    return folder


def add_revision(folder: Path, revision: str, source: str) -> None:
    (folder / "tenant" / "versions" / f"{revision}.py").write_text(source)


@contextmanager
def use_migrations(folder: Path) -> Iterator[None]:
    """Have this process migrate by the trees in `folder` while the block lasts."""
    caches = (migrations.head, migrations.compile_script)
    with ExitStack() as stack:
        for module in (revision_files, revisions, migrations):
            stack.enter_context(patch.object(module, "migrations_folder", lambda: folder))
        for cache in caches:
            cache.cache_clear()
            stack.callback(cache.cache_clear)
        yield
