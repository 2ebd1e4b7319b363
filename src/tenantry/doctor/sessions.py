"""Connections: whether there are enough, and what those that are open do, or keep others from doing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenantry.doctor.findings import Finding, critical, ok, some, warning
from tenantry.doctor.site import Need

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tenantry.doctor.site import Site

__all__ = ("check_connections", "check_sessions", "judge_sessions", "planned_connections")

_IDLE, _LONG = 60, 900
"""Seconds that a transaction may do nothing, or go on, before it is named. A rollout's statements may take minutes."""
_MIB = 1024 * 1024

_LIMITS = """
SELECT current_setting('max_connections')::int AS most,
       current_setting('superuser_reserved_connections')::int
       + coalesce(current_setting('reserved_connections', true), '0')::int AS reserved,
       (SELECT rolconnlimit FROM pg_roles WHERE rolname = session_user) AS role_limit,
       (SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS database_limit,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used
"""
# Of other roles' sessions, a role that is no member of pg_monitor sees neither state nor times: each address looks at
# its own.
_SESSIONS = """
SELECT pid, usename::text AS role, state, coalesce(application_name, '') AS program, wait_event_type AS waits,
       extract(epoch FROM clock_timestamp() - xact_start)::float8 AS open,
       extract(epoch FROM clock_timestamp() - state_change)::float8 AS since
  FROM pg_stat_activity
 WHERE pid <> pg_backend_pid() AND xact_start IS NOT NULL AND backend_type = 'client backend'
"""
_PREPARED = """
SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND prepared < now() - interval '15 minutes'
"""
_SLOTS = """
SELECT slot_name::text AS name, coalesce(wal_status, 'unknown') AS status,
       coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn()
                                     ELSE pg_current_wal_lsn() END, restart_lsn), 0)::bigint AS kept
  FROM pg_replication_slots WHERE NOT active AND restart_lsn IS NOT NULL ORDER BY 1
"""


def planned_connections(settings: Any, *, api_replicas: int, worker_replicas: int) -> int:
    """The most that so many processes with these settings open, the provisioner and a few commands included."""
    # A worker has one for each job, three for its own errands, and one that listens.
    worker = settings.worker_concurrency + 4
    provisioner_and_commands = 16
    return int(api_replicas * settings.database_connections + worker_replicas * worker + provisioner_and_commands)


async def check_connections(site: Site) -> list[Finding]:
    (row,) = await site.catalog(_LIMITS)
    room = row["most"] - row["reserved"]
    room = min([room, *(limit for limit in (row["role_limit"], row["database_limit"]) if limit >= 0)])
    options = site.options
    planned = planned_connections(
        site.settings, api_replicas=options.api_replicas, worker_replicas=options.worker_replicas
    )
    found = []
    seen = (
        f"{planned:,} of {options.api_replicas} times {site.settings.workers} serving processes and "
        f"{options.worker_replicas} workers; {room:,} allowed"
    )
    # Where LISTEN goes another way, the application's address is a pooler's, and its limits count.
    if planned > room and site.settings.database_listen_url is None:
        found.append(
            warning(
                "connections.planned",
                "The pools may ask for more connections than PostgreSQL gives",
                seen=seen,
                expected="less than max_connections, and than the limits of role and database",
                remedy="Lower TENANTRY_DATABASE_CONNECTIONS, raise max_connections, or put a pooler between.",
            )
        )
    if row["used"] > 0.8 * room:
        tell = critical if row["used"] > 0.95 * room else warning
        found.append(
            tell(
                "connections.used",
                "Hardly a connection is left",
                seen=f"{row['used']:,} of {room:,} in use",
                expected="at most four fifths",
                remedy="See whose they are in pg_stat_activity; lower pools, or put a pooler between.",
            )
        )
    return found or [ok("connections.enough", "There are connections enough", seen=f"{seen}, {row['used']:,} in use")]


async def check_sessions(site: Site) -> list[Finding]:
    rows = {row["pid"]: row for row in await site.catalog(_SESSIONS)}
    for need in (Need.OWNER, Need.ADMIN):
        if need in site.urls:
            async with site.connect(need) as connection:
                rows |= {row["pid"]: row for row in await connection.fetch(_SESSIONS)}
    found = judge_sessions([dict(row) for row in rows.values()])
    if names := [row["gid"] for row in await site.catalog(_PREPARED)]:
        found.append(
            warning(
                "sessions.prepared",
                "Prepared transactions that nobody ends: they hold locks, and keep vacuum from its work",
                seen=some(names),
                expected="none; nothing of ours prepares any",
                remedy="ROLLBACK PREPARED '…';",
            )
        )
    slots = await site.catalog(_SLOTS)
    if slots:
        lost = any(row["status"] == "lost" for row in slots)
        found.append(
            (critical if lost else warning)(
                "sessions.slots",
                "Replication slots that nobody reads from: the WAL is kept for them until the disk is full",
                seen=some([f"{row['name']} ({row['status']}, {row['kept'] / _MIB:,.0f} MiB)" for row in slots]),
                expected="none, or their replica at work",
                remedy="Start the replica, or SELECT pg_drop_replication_slot('…').",
            )
        )
    return found or [
        ok("sessions.short", "No transaction has been open for long", seen=f"{len(rows)} open at this moment")
    ]


def judge_sessions(rows: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Sessions with an open transaction: `open` and `since` (its last statement's beginning or end) in seconds."""
    idle = [row for row in rows if str(row["state"]).startswith("idle in") and row["since"] > _IDLE]
    long = [row for row in rows if row["open"] > _LONG and row not in idle]
    waiting = [row for row in rows if row["waits"] == "Lock" and row["since"] > _IDLE]
    found = []
    for code, group, summary, expected in (
        ("sessions.idle", idle, "Transactions are open and do nothing, holding locks", f"at most {_IDLE} s"),
        ("sessions.long", long, "Transactions have been open for long: no vacuum since", f"at most {_LONG // 60} min"),
        ("sessions.waiting", waiting, "Sessions wait for a lock for long", f"at most {_IDLE} s"),
    ):
        if group:
            found.append(
                warning(
                    code,
                    summary,
                    seen=some(
                        [f"{row['role']} {row['program']} (pid {row['pid']}, {row['open']:.0f} s)" for row in group]
                    ),
                    expected=expected,
                    remedy="Find whose they are, and SELECT pg_terminate_backend(pid).",
                )
            )
    return found
