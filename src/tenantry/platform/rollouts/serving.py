"""Whether processes still serve that do not know this release's newest revision.

They refuse a tenant that is at it: whoever migrates tenants, or makes new ones, waits until the last of them has gone.
Every process that serves follows the tenants over a connection of its own, which is called by the newest revision that
it knows (`tenantry.tenancy.release.follower_name`).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import asyncpg
import structlog

from tenantry.tenancy.connection import DriverConnection
from tenantry.tenancy.release import FOLLOWER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tenantry.platform.rollouts.planning import Fetch

__all__ = ("latecomers", "wait_until_served")

_LOOK = 0.5
"""Seconds between two looks, or tries."""
_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    # It starts, it stops, or it has no connection to spare.
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
)

_log = structlog.get_logger(__name__)

# Of one's own login alone PostgreSQL tells when it last did something. A pooler's connection keeps the name of whom it
# served last, for as long as it idles.
_FOLLOWERS = f"""
SELECT split_part(application_name, ':', 2), count(*)
  FROM pg_catalog.pg_stat_activity
 WHERE datname = current_database() AND usename = session_user
   AND split_part(application_name, ':', 1) = '{FOLLOWER}'
   AND state_change > now() - make_interval(secs => $1)
 GROUP BY 1
"""  # noqa: S608 - a constant


async def latecomers(fetch: Fetch, line: Sequence[str], *, within: float) -> int:
    """How many processes serve that do not know the newest of these revisions.

    Args:
        fetch: logged in as the processes are.
        line: the revisions of the tenant tree, in its order.
        within: seconds; who has not looked at the tenants for longer serves nobody (`TENANTRY_REGISTRY_STALE_AFTER`).
    """
    older = frozenset(line[:-1])
    return sum(count for newest, count in await fetch(_FOLLOWERS, within) if newest in older)


async def wait_until_served(
    url: str, line: Sequence[str], *, stale_after: float, tell: Callable[[int], object]
) -> None:
    """Return once there is none, and has not been for `stale_after`: one that is connecting anew is not seen meanwhile.

    A database that is away is waited for as well. For how long, is the caller's to say.

    Args:
        url: where the processes log in, and as whom; past a pooler, where there is one.
        line: as for `latecomers`.
        stale_after: as `within` there, in seconds.
        tell: is told their number, and again whenever it has changed.

    Raises:
        asyncpg.PostgresError: the server refuses the address.
    """
    while True:
        try:
            return await _watch(url, line, stale_after, tell)
        except _AWAY as error:
            _log.warning("the database is away", error=repr(error))
            await asyncio.sleep(_LOOK)


async def _watch(url: str, line: Sequence[str], stale_after: float, tell: Callable[[int], object]) -> None:
    # Without prepared statements, which a pooler may not know.
    connection = await asyncpg.connect(
        url, connection_class=DriverConnection, timeout=5, command_timeout=5, statement_cache_size=0
    )
    try:
        seen: int | None = None
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < stale_after:
            found = await latecomers(connection.fetch, line, within=stale_after)
            if found:
                quiet_since = time.monotonic()
            if found != seen:
                tell(found)
                seen = found
            await asyncio.sleep(min(_LOOK, stale_after))
    finally:
        connection.terminate()
