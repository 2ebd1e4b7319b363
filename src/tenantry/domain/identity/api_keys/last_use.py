"""When a key was last used, without a write in every request.

The statement that looks a key up says whether its time is older than five minutes. If so, the new one is written once
the answer is out and the request's connection is back in the pool, in a transaction of its own: a GET's is READ ONLY,
and a writing request would hold the row's lock, so that requests by one key queued up behind one another.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from tenantry.tenancy.noting import NotedUses

if TYPE_CHECKING:
    from tenantry.tenancy.database import Database

__all__ = ("NOTED_EVERY", "LastUses")

NOTED_EVERY = datetime.timedelta(minutes=5)

# SKIP LOCKED: another process is at it, or somebody rotates the key; whichever way, nobody waits for this.
_NOTE = """
UPDATE api_key SET last_used_at = now()
 WHERE id = (SELECT id FROM api_key WHERE id = $1 AND coalesce(last_used_at < now() - $2::interval, true)
                FOR NO KEY UPDATE SKIP LOCKED)
"""


class LastUses(NotedUses):
    """Writes down that keys were used, each at most once in `NOTED_EVERY`."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, statement=_NOTE, every=NOTED_EVERY, named="api_key_id")
