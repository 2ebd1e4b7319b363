"""Whether the server has room for the connections that the settings allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from tenantry.tenancy.database import LOST

if TYPE_CHECKING:
    from tenantry.kernel.settings import Settings
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.scope import Scope

__all__ = ("check_connections",)

# reserved_connections: from PostgreSQL 16 on.
_ROOM = """
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
       - current_setting('reserved_connections')::int
"""

_log = structlog.get_logger(__name__)


async def check_connections(settings: Settings, database: Database, scope: Scope) -> None:
    """Warn where this `tenantry serve` alone may open more connections than the server takes.

    Nothing is said of a pooler, which has limits of its own, nor where the database does not answer.
    """
    if settings.database_listen_url is not None:
        return
    try:
        async with database.transaction(scope) as transaction:
            room: int = await transaction.connection.fetchval(_ROOM)
    except LOST:
        return
    if settings.database_connections > room:
        _log.warning(
            "PostgreSQL takes fewer connections than TENANTRY_DATABASE_CONNECTIONS allows",
            allowed=settings.database_connections,
            taken=room,
        )
