"""How long statements take: those that take too long are logged with whose they were, and all are spans of a trace.

asyncpg's own query loggers see no prepared statement run, which is how the ORM runs all of its own; and one that is
there costs each statement a record and a turn of the event loop.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

import structlog
from asyncpg.prepared_stmt import PreparedStatement

from tenantry.kernel.work import WORK
from tenantry.tenancy.metrics import statement_was_slow

if TYPE_CHECKING:
    from tenantry.tenancy.connection import ScopedConnection
    from tenantry.tenancy.scope import Scope

    # Generic in its stubs alone.
    _PreparedStatement = PreparedStatement[Any]
else:
    _PreparedStatement = PreparedStatement

__all__ = ("TimedStatement", "report_slow")

_LENGTH = 2000
"""Characters of a statement that are logged."""

_log = structlog.get_logger("tenantry.slow_statements")


def report_slow(scope: Scope | None, query: str, seconds: float) -> None:
    """Log one statement, without the values that it was given: those are apart from its text, and stay there."""
    statement_was_slow(scope)
    statement = " ".join(query.split())
    _log.warning(
        "slow statement",
        tenant=scope.tenant if scope is not None else None,
        plan=scope.plan if scope is not None else None,
        work=WORK.get() or None,
        milliseconds=round(seconds * 1000, 1),
        statement=statement if len(statement) <= _LENGTH else f"{statement[:_LENGTH]}…",
    )


class TimedStatement(_PreparedStatement):
    """A prepared statement that tells its connection how long it took."""

    __slots__ = ()
    _connection: ScopedConnection
    _query: str

    async def fetch(self, *args: Any, **options: Any) -> list[Any]:
        """As asyncpg's."""
        begun = perf_counter()
        try:
            rows = await super().fetch(*args, **options)
        except BaseException as error:
            self._connection.ran(self._query, begun, error)
            raise
        self._connection.ran(self._query, begun)
        return rows
