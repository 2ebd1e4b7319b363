"""Hot reads: a statement built with SQLAlchemy, compiled once, run on the driver.

The ORM costs about a millisecond of CPU per request, the driver alone a third of it. A hot read keeps the models as
the one description of the tables and gives up identity map, loading strategies and change tracking, which a read that
goes straight into a struct has no use for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

if TYPE_CHECKING:
    import asyncpg
    from sqlalchemy import Executable

    from tenantry.tenancy.connection import ScopedConnection

__all__ = ("HotStatement",)


class HotStatement:
    """A SELECT whose only parameters are `bindparam`s with names."""

    __slots__ = ("_names", "sql")

    def __init__(self, statement: Executable) -> None:
        compiled: Any = statement.compile(dialect=PGDialect_asyncpg())  # type: ignore[no-untyped-call, attr-defined]
        self.sql = str(compiled)
        self._names: tuple[str, ...] = tuple(compiled.positiontup)

    async def one(self, connection: ScopedConnection, **values: Any) -> asyncpg.Record | None:
        """The first row, or None.

        Raises:
            KeyError: a parameter is missing.
        """
        return await connection.fetchrow(self.sql, *(values[name] for name in self._names))

    async def all(self, connection: ScopedConnection, **values: Any) -> list[asyncpg.Record]:
        """All rows."""
        return await connection.fetch(self.sql, *(values[name] for name in self._names))
