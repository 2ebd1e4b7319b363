"""When a key was last used, without a write in every request.

The statement that looks a key up says whether its time is older than five minutes. If so, the new one is written once
the answer is out and the request's connection is back in the pool, in a transaction of its own: a GET's is READ ONLY,
and a writing request would hold the row's lock, so that requests by one key queued up behind one another.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import structlog

from tenantry.tenancy.database import LOST

if TYPE_CHECKING:
    from uuid import UUID

    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.database import Database

__all__ = ("NOTED_EVERY", "LastUses")

NOTED_EVERY = datetime.timedelta(minutes=5)

# SKIP LOCKED: another process is at it, or somebody rotates the key; whichever way, nobody waits for this.
_NOTE = """
UPDATE api_key SET last_used_at = now()
 WHERE id = (SELECT id FROM api_key WHERE id = $1 AND coalesce(last_used_at < now() - $2::interval, true)
                FOR NO KEY UPDATE SKIP LOCKED)
"""

_log = structlog.get_logger(__name__)


class LastUses:
    """Writes down that keys were used, each at most once in `NOTED_EVERY`. Belongs to one event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._under_way: set[UUID] = set()

    async def note(self, tenant: TenantContext, key_id: UUID) -> None:
        """Write down that the key was used now, unless somebody else has done so or is about to.

        That it could not be is no error of the request's, which has been answered: it is logged, and the next request
        tries again.
        """
        if key_id in self._under_way:
            # A hundred requests at once would take a hundred connections for one row.
            return
        self._under_way.add(key_id)
        try:
            async with self._database.transaction(tenant.write_scope) as transaction:
                await transaction.connection.execute(_NOTE, key_id, NOTED_EVERY)
        except LOST as error:
            _log.warning("an API key's last use was not noted", api_key_id=str(key_id), error=repr(error))
        finally:
            self._under_way.discard(key_id)
