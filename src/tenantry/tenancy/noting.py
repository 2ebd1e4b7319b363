"""When a credential was last used, written down without a write in every request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from tenantry.tenancy.database import LOST

if TYPE_CHECKING:
    import datetime
    from uuid import UUID

    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.database import Database

__all__ = ("NotedUses",)

_log = structlog.get_logger(__name__)


class NotedUses:
    """Writes down that something was used, each thing at most once in a while. Belongs to one event loop."""

    def __init__(self, database: Database, *, statement: str, every: datetime.timedelta, named: str) -> None:
        """`statement` takes an id and `every`, and waits for nobody; `named` is what the log calls the id."""
        self._database = database
        self._statement = statement
        self._every = every
        self._named = named
        self._under_way: set[UUID] = set()

    async def note(self, tenant: TenantContext, used_id: UUID) -> None:
        """Write down that it was used now, unless somebody else has done so or is about to.

        That it could not be is no error of the request's, which has been answered: it is logged, and the next request
        tries again.
        """
        if used_id in self._under_way:
            # A hundred requests at once would take a hundred connections for one row.
            return
        self._under_way.add(used_id)
        try:
            async with self._database.transaction(tenant.write_scope) as transaction:
                await transaction.connection.execute(self._statement, used_id, self._every)
        except LOST as error:
            _log.warning("a last use was not noted", error=repr(error), **{self._named: str(used_id)})
        finally:
            self._under_way.discard(used_id)
