"""When a session was last used: as of API keys, noted after the answer, at most once a minute for each."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from tenantry.tenancy.noting import NotedUses

if TYPE_CHECKING:
    from tenantry.tenancy.database import Database

__all__ = ("NOTED_EVERY", "session_uses")

NOTED_EVERY = datetime.timedelta(minutes=1)
"""As the statement in `tenantry.domain.identity.principal` has it, which says when it is time."""

# SKIP LOCKED: another process is at it, or the refresh token is being traded; nobody waits for this.
_NOTE = """
UPDATE user_session SET last_used_at = now()
 WHERE id = (SELECT id FROM user_session WHERE id = $1 AND revoked_at IS NULL AND last_used_at < now() - $2::interval
                FOR NO KEY UPDATE SKIP LOCKED)
"""


def session_uses(database: Database) -> NotedUses:
    """Notes uses of sessions."""
    return NotedUses(database, statement=_NOTE, every=NOTED_EVERY, named="session_id")
