"""Whether two tenants that share a backend ever see anything of each other, through whatever is in between.

A few connections of the service's own class take turns: tenant A, tenant B, A again, each transaction ending by
COMMIT, ROLLBACK or an error, until one backend has served both. Inside each transaction the role, the path, the limits
and the table that a name leads to must be that tenant's; before and after each, without any scope, the backend must be
as it was when it was made: no role, no path, no setting, lock, cursor, listener, temporary table or open transaction.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
from sqlalchemy.exc import DBAPIError

from tenantry.doctor.findings import Finding, critical, note, ok, some, warning
from tenantry.doctor.site import Need
from tenantry.tenancy.bootstrap import APP_ROLE
from tenantry.tenancy.connection import ScopedConnection
from tenantry.tenancy.models import schema_name
from tenantry.tenancy.revision_files import HAS_SCHEMA
from tenantry.tenancy.scope import Scope

if TYPE_CHECKING:
    from tenantry.doctor.site import Site

__all__ = ("check_pooler",)

_CONNECTIONS = 3
_ENDINGS = ("commit", "rollback", "error")
_ROUNDS = 2 * len(_ENDINGS)
_MOST_ROUNDS = 60
"""As long as no backend has served both: behind a balancer it takes luck."""

# Tenants' or, where there are too few of them, schemas that wait for a tenant: they are as good, and empty.
_TENANTS = f"""
SELECT id FROM (
    SELECT t.id, 0 AS place FROM platform.tenant t WHERE {HAS_SCHEMA} AND t.status = 'active'
    UNION ALL SELECT w.id, 1 FROM platform.warm_schema w
) c WHERE EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = 't_' || replace(c.id::text, '-', ''))
 ORDER BY place, id LIMIT 2
"""  # noqa: S608 - a constant

_INSIDE = """
SELECT pg_backend_pid() AS pid, current_setting('role') AS role, current_user::text AS "user",
       current_setting('search_path') AS path, current_setting('transaction_read_only') AS read_only,
       current_setting('statement_timeout') AS statement_timeout, current_setting('lock_timeout') AS lock_timeout,
       has_schema_privilege(current_user, $1, 'USAGE') AS may_enter_other,
       (SELECT n.nspname::text FROM alembic_version v JOIN pg_class c ON c.oid = v.tableoid
          JOIN pg_namespace n ON n.oid = c.relnamespace) AS read_from
"""
# What poolers themselves set for each of their clients (PgBouncer's `track_extra_parameters` and its defaults) is no
# leftover. `role` is in no list of settings, and is asked for by name.
_OUTSIDE = """
SELECT pg_backend_pid() AS pid, current_setting('role') AS role, session_user::text AS "user",
       current_setting('search_path') AS path,
       ARRAY(SELECT format('%s = %s', s.name, s.setting) FROM pg_settings s
              WHERE s.source = 'session' AND s.name NOT IN (
                    'application_name', 'client_encoding', 'DateStyle', 'TimeZone', 'standard_conforming_strings',
                    'IntervalStyle', 'default_transaction_read_only', 'in_hot_standby', 'transaction_read_only',
                    'transaction_isolation', 'transaction_deferrable')
              ORDER BY 1) AS settings,
       (SELECT count(*) FROM pg_locks l WHERE l.pid = pg_backend_pid() AND l.locktype = 'advisory') AS locks,
       ARRAY(SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = pg_my_temp_schema()) AS temporary,
       ARRAY(SELECT p.name FROM pg_prepared_statements p WHERE p.from_sql) AS prepared,
       (SELECT min(p.name) FROM pg_prepared_statements p WHERE p.name LIKE '\\_\\_asyncpg\\_%') AS named,
       ARRAY(SELECT c.name FROM pg_cursors c WHERE c.is_holdable) AS cursors,
       ARRAY(SELECT pg_listening_channels()) AS listening
"""


class _ErrorOnPurpose(Exception):  # noqa: N818 - none of ours goes wrong
    pass


class _Connection(ScopedConnection):
    """The service's connection, which can also be looked at without a scope."""

    async def outside(self) -> asyncpg.Record:
        """What the session is like between two transactions; in one that no scope has entered."""
        await super(ScopedConnection, self).execute("BEGIN READ ONLY")
        try:
            row = await self.fetchrow(_OUTSIDE)
        finally:
            await self.execute("ROLLBACK")
        assert row is not None  # noqa: S101 - a SELECT without FROM answers one row
        return row


@dataclass
class _Trial:
    """What came of the turns so far."""

    served: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Tenants by backend."""
    used: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Connections by backend."""
    leaks: dict[str, str] = field(default_factory=dict)
    """Where, and what was seen; one of a kind is enough."""
    turns: int = 0
    pooled: bool = False
    waited: int = 0
    """Connections that got no backend beside the others."""
    named: str | None = None
    """A statement that a driver has prepared under a name of its own, seen on a backend."""

    @property
    def shared(self) -> list[int]:
        return [pid for pid, tenants in self.served.items() if len(tenants) > 1]

    @property
    def changed_hands(self) -> bool:
        """Whether a backend was given to another connection while the first was open."""
        return any(len(connections) > 1 for connections in self.used.values())


async def check_pooler(site: Site) -> list[Finding]:
    trial, connections = _Trial(), list[_Connection]()
    try:
        rows = await site.control(_TENANTS)
        if len(rows) < 2:
            return [_too_few(len(rows))]
        for _ in range(_CONNECTIONS):
            connections.append(await _open(site, trial))
        scopes = [_scope(row["id"]) for row in rows]
        await _play(trial, connections, scopes, site.settings.database_connect_timeout)
    except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError):
        # The database is not as it should be, which other checks say better.
        raise
    except (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError) as error:
        return [_prepared(str(error))]
    except (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        return [_broken(error), *_leaks(trial)]
    finally:
        for connection in connections:
            connection.terminate()
    return _judge(trial)


def _too_few(count: int) -> Finding:
    return note(
        "pooler.too-few",
        "There are no two organizations yet, so nothing can share a backend",
        seen=f"{count} schemas",
        remedy="Look again when there are two, or when the warm pool has filled.",
    )


def _scope(tenant_id: UUID) -> Scope:
    name = schema_name(tenant_id)
    # Numbers that nobody has as a default, so that those of another transaction are recognized.
    return Scope(role=name, search_path=name, read_only=True, statement_timeout=7919, lock_timeout=1987)


async def _open(site: Site, trial: _Trial) -> _Connection:
    cache: dict[str, Any] = {} if site.settings.database_prepared_statements else {"statement_cache_size": 0}
    connection: _Connection = await asyncpg.connect(
        site.urls[Need.APP],
        connection_class=_Connection,
        timeout=site.settings.database_connect_timeout,
        **cache,
    )

    def hear(_: object, message: Any) -> None:
        # 25001: BEGIN inside somebody's transaction; 25P01: COMMIT or ROLLBACK outside of every one.
        if message.sqlstate in {"25001", "25P01"}:
            trial.leaks.setdefault("transaction", f"the server said: {message.message}")

    connection.add_log_listener(hear)
    return connection


async def _play(trial: _Trial, connections: list[_Connection], scopes: list[Scope], wait: float) -> None:
    ready = dict(enumerate(connections))
    for number in range(_MOST_ROUNDS):
        if number >= _ROUNDS and trial.shared:
            return
        for place, connection in list(ready.items()):
            own, other = scopes[(number + place) % 2], scopes[(number + place + 1) % 2]
            try:
                async with asyncio.timeout(wait):
                    await _turn(trial, place, connection, own, other, _ENDINGS[number // 2 % len(_ENDINGS)])
            except TimeoutError:
                if number:
                    raise
                # In session mode it waits for a backend until another connection is closed.
                trial.waited += 1
                del ready[place]
                connection.terminate()


async def _turn(trial: _Trial, place: int, connection: _Connection, own: Scope, other: Scope, ending: str) -> None:
    _look(trial, await connection.outside(), f"before a transaction of connection {place + 1}")
    pid = 0
    connection.arm(own)
    try:
        async with connection.transaction():
            row = await connection.fetchrow(_INSIDE, other.role)
            assert row is not None  # noqa: S101 - a SELECT without FROM answers one row
            pid = row["pid"]
            _look_inside(trial, row, own)
            if ending == "error":
                await connection.fetch("SELECT 1 / $1::int", 0)
            if ending == "rollback":
                raise _ErrorOnPurpose  # noqa: TRY301 - what asyncpg's transaction ends by ROLLBACK for
    except (_ErrorOnPurpose, asyncpg.DivisionByZeroError):
        pass
    after = await connection.outside()
    _look(trial, after, f"after a transaction that ended by {ending}")
    trial.served[pid].add(own.role)
    trial.used[pid].add(place)
    trial.pooled |= pid != connection.get_server_pid()
    trial.turns += 1
    trial.named = trial.named or after["named"]


def _look_inside(trial: _Trial, row: asyncpg.Record, own: Scope) -> None:
    expected = {
        "role": own.role,
        "user": own.role,
        "path": own.search_path,
        "read_only": "on",
        "statement_timeout": f"{own.statement_timeout}ms",
        "lock_timeout": f"{own.lock_timeout}ms",
        "may_enter_other": False,
        "read_from": own.role,
    }
    for name, value in expected.items():
        found = row[name].strip('"') if name == "path" else row[name]
        if found != value:
            trial.leaks.setdefault(f"inside.{name}", f"{name} was {found!r} in a transaction of {own.role}")


def _look(trial: _Trial, row: asyncpg.Record, when: str) -> None:
    if row["role"] != "none":
        trial.leaks.setdefault("role", f"the role {row['role']!r} was left {when}")
    if row["path"] not in {"", '""'}:
        trial.leaks.setdefault("path", f"the search path {row['path']!r} was left {when}")
    for name, what in (
        ("settings", "settings of the session"),
        ("temporary", "temporary tables"),
        ("prepared", "statements prepared by SQL"),
        ("cursors", "cursors that outlive their transaction"),
        ("listening", "channels that are listened to"),
    ):
        if found := [item for item in row[name] if not item.startswith("search_path =")]:
            trial.leaks.setdefault(name, f"{what} {when}: {some(found)}")
    if row["locks"]:
        trial.leaks.setdefault("locks", f"{row['locks']} advisory locks of the session {when}")


def _judge(trial: _Trial) -> list[Finding]:
    found = _leaks(trial)
    way = "through a pooler" if trial.pooled else "without a pooler"
    how = f"{trial.turns} transactions on {len(trial.served)} backends, {way}"
    if trial.pooled and trial.changed_hands and trial.named:
        found.append(_prepared(f"the statement {trial.named} of one connection on a backend that others are given"))
    if trial.waited:
        found.append(
            warning(
                "pooler.waited",
                "Connections wait for a backend that others keep: the pooler has too few, or is in session mode",
                seen=f"{trial.waited} of {_CONNECTIONS} got none in time",
                expected="a backend for each transaction",
                remedy="Set pool_mode = transaction, with more server connections (docs/operations/deployment.md).",
            )
        )
    elif trial.pooled and not trial.changed_hands:
        found.append(
            note(
                "pooler.session-mode",
                "The pooler gives each connection a backend of its own (session mode): safe, but it saves nothing",
                seen=how,
                expected="transaction mode",
                remedy="Set pool_mode = transaction (docs/operations/deployment.md, Poolers).",
            )
        )
    if trial.turns and not trial.shared:
        found.append(
            warning(
                "pooler.not-forced",
                "No backend has served two organizations, so nothing could be seen",
                seen=how,
                expected="one backend for both within the time",
                remedy="Give the pooler fewer server connections for a moment, and look again.",
            )
        )
    if not found:
        found.append(ok("pooler.clean", "Two organizations took turns on one backend, and nothing was left", seen=how))
    return found


def _leaks(trial: _Trial) -> list[Finding]:
    return [
        critical(
            "pooler.leak",
            "Something of one transaction is there in the next one, which may be another organization's",
            seen=seen,
            expected="a backend as it was when it was made",
            remedy="Stop serving through this pooler: log in at PostgreSQL itself until it runs in transaction mode "
            f"and passes. Look also at `ALTER ROLE {APP_ROLE} SET …`.",
        )
        for seen in trial.leaks.values()
    ]


def _prepared(seen: str) -> Finding:
    return critical(
        "pooler.prepared-statements",
        "The pooler loses prepared statements: one client's are another's, or nobody's",
        seen=seen,
        expected="statements that stay with their connection",
        remedy="Set TENANTRY_DATABASE_PREPARED_STATEMENTS=false, or use PgBouncer 1.21 or newer with "
        "max_prepared_statements.",
    )


def _broken(error: Exception) -> Finding:
    return critical(
        "pooler.transactions",
        "A transaction does not keep its backend to its end, or does not end as it should",
        seen=f"{type(error).__name__}: {' '.join(str(error).partition('[SQL')[0].split())}",
        expected="BEGIN to COMMIT on one backend",
        remedy="Set pool_mode = transaction: in statement mode there are no transactions, and so no tenants.",
    )
