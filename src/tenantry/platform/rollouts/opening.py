"""The row that starts a rollout, and who asked for it, without an ORM: the command runs it on the driver's connection.

See `tenantry.platform.rollouts.planning.Fetch`; `steering` does the same in a session.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

if TYPE_CHECKING:
    from tenantry.platform.rollouts.ledger import Settings
    from tenantry.platform.rollouts.planning import Fetch

__all__ = ("open_rollout", "running_rollout")

_OPEN = """
WITH made AS (
    INSERT INTO platform.rollout
           (id, target, status, canary, concurrency, halt_after, lock_timeout, max_attempts, "only", requested_by,
            created_at, updated_at)
    VALUES ($1, $2, 'running', $3, $4, $5, $6, $7, $8::text[], $9, now(), now())
    ON CONFLICT DO NOTHING RETURNING id
), noted AS (
    INSERT INTO platform.audit_entry (id, actor, action, target, details, request_id, created_at, updated_at)
    SELECT $10::uuid, $9, 'rollout.start', id::text, $11::text::jsonb, $12::text, now(), now() FROM made
)
SELECT id FROM made
"""


async def open_rollout(fetch: Fetch, settings: Settings, *, requested_by: str) -> UUID | None:
    """Write down that one is to run, with its entry in the audit trail; None where one is running already.

    Waits for whoever starts another at this moment. Its target and slugs have been looked at (`planning`).

    Args:
        fetch: in the control plane's scope, or the owner's.
        settings: what it is to do.
        requested_by: who asked, as the audit trail names them.
    """
    only = None if settings.only is None else list(dict.fromkeys(settings.only))
    details: dict[str, Any] = {
        "target": settings.target,
        "canary": settings.canary,
        "concurrency": settings.concurrency,
        "haltAfter": settings.halt_after,
    }
    if only is not None:
        details["only"] = only
    rows = await fetch(
        _OPEN,
        uuid7(),
        settings.target,
        settings.canary,
        settings.concurrency,
        settings.halt_after,
        settings.lock_timeout,
        settings.max_attempts,
        only,
        requested_by,
        uuid7(),
        json.dumps(details),
        structlog.contextvars.get_contextvars().get("request_id"),
    )
    return _first(list(rows))


async def running_rollout(fetch: Fetch) -> UUID | None:
    """The one that says `running`."""
    return _first(list(await fetch("SELECT id FROM platform.rollout WHERE status = 'running'")))


def _first(rows: list[Any]) -> UUID | None:
    # As its digits: asyncpg's own UUID is a subclass, of which JSON encoders know nothing.
    return UUID(str(rows[0][0])) if rows else None
