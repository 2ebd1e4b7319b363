"""PostgreSQL's own settings, of which most are right as they come, and some are not with thousands of schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantry.doctor.findings import Finding, critical, note, ok, some, warning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tenantry.doctor.site import Site

__all__ = ("Catalog", "check_postgresql", "check_vacuum", "judge_age", "judge_settings", "judge_vacuum")

_OLDEST = 160000
_MANY = 100_000
"""Relations from which on the defaults of autovacuum are not enough to keep up with."""
_AGE_WARNING, _AGE_CRITICAL = 500_000_000, 1_200_000_000
"""Transactions. PostgreSQL refuses to write 2.1 billion after the oldest row that was not frozen."""

# What a session begins with: of what the look itself has set, nothing.
_SETTINGS = "SELECT name, reset_val AS setting FROM pg_settings"
_FACTS = """
SELECT count(*) AS relations, count(*) FILTER (WHERE relkind IN ('r', 'p')) AS tables,
       pg_is_in_recovery() AS standby, pg_encoding_to_char((SELECT encoding FROM pg_database
                                                             WHERE datname = current_database())) AS encoding
  FROM pg_class
"""
_UNLOGGED = """
SELECT format('%s.%s', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relpersistence = 'u' AND c.relkind = 'r' ORDER BY 1 LIMIT 100
"""
_AGES = """
SELECT datname::text AS name, age(datfrozenxid)::bigint AS xid, mxid_age(datminmxid)::bigint AS mxid
  FROM pg_database ORDER BY 2 DESC
"""
_DEAD = """
SELECT c.relname::text AS name, pg_stat_get_live_tuples(c.oid) AS live, pg_stat_get_dead_tuples(c.oid) AS dead
  FROM pg_class c
 WHERE c.oid IN ('pg_attribute'::regclass, 'pg_class'::regclass, 'pg_depend'::regclass, 'pg_statistic'::regclass)
"""


class Catalog:
    """How much there is in the database."""

    def __init__(self, *, relations: int, tables: int) -> None:
        """Rows of pg_class, and those of them that are tables."""
        self.relations = relations
        self.tables = tables


async def _settings(site: Site) -> dict[str, str]:
    return {row["name"]: row["setting"] for row in await site.catalog(_SETTINGS)}


async def check_postgresql(site: Site) -> list[Finding]:
    (facts,) = await site.catalog(_FACTS)
    found = judge_settings(
        await _settings(site), Catalog(relations=facts["relations"], tables=facts["tables"]), local=site.embedded
    )
    if facts["standby"]:
        found.append(
            critical(
                "postgresql.standby",
                "The address leads to a standby, which takes no writes",
                seen="in recovery",
                expected="the primary",
                remedy="Correct TENANTRY_DATABASE_URL, or promote it.",
            )
        )
    if facts["encoding"] != "UTF8":
        found.append(
            critical(
                "postgresql.encoding",
                "The database cannot hold every name",
                seen=facts["encoding"],
                expected="UTF8",
                remedy="Make the database anew with ENCODING 'UTF8', and move the data.",
            )
        )
    if names := [row["name"] for row in await site.catalog(_UNLOGGED)]:
        found.append(
            warning(
                "postgresql.unlogged",
                "Tables that are empty after a crash, and on every replica",
                seen=some(names),
                expected="no unlogged table",
                remedy="ALTER TABLE … SET LOGGED;",
            )
        )
    if not [finding for finding in found if finding.severity.rank > 1]:
        found.append(
            ok("postgresql.good", "PostgreSQL's settings suit many schemas", seen=f"{facts['relations']:,} relations")
        )
    return found


def judge_settings(values: Mapping[str, str], catalog: Catalog, *, local: bool) -> list[Finding]:
    """`values` are pg_settings' own, each in its own unit; `local` where the server is the embedded one."""
    found: list[Finding] = []
    if int(values["server_version_num"]) < _OLDEST:
        found.append(
            critical(
                "postgresql.version",
                "PostgreSQL is too old: what keeps the application from holding rights needs 16",
                seen=values["server_version"],
                expected="16 or newer",
                remedy="Upgrade it.",
            )
        )
    if unsafe := [name for name in ("fsync", "full_page_writes") if values[name] == "off"]:
        found.append(
            critical(
                "postgresql.unsafe",
                "A power cut destroys the database",
                seen=", ".join(f"{name} = off" for name in unsafe),
                expected="on",
                remedy=f"As a superuser: ALTER SYSTEM RESET {unsafe[0]}; and reload.",
            )
        )
    if values["synchronous_commit"] == "off":
        found.append(
            warning(
                "postgresql.asynchronous",
                "What was acknowledged may be lost in a crash",
                seen="synchronous_commit = off",
                expected="on",
                remedy="ALTER SYSTEM RESET synchronous_commit; and reload.",
            )
        )
    if values["default_transaction_read_only"] == "on":
        found.append(
            critical(
                "postgresql.read-only",
                "Transactions are read-only by default",
                seen="default_transaction_read_only = on",
                expected="off",
                remedy="ALTER DATABASE … RESET default_transaction_read_only;",
            )
        )
    if values["default_transaction_isolation"] != "read committed":
        found.append(
            warning(
                "postgresql.isolation",
                "Transactions have another isolation than the code expects",
                seen=values["default_transaction_isolation"],
                expected="read committed",
                remedy="ALTER DATABASE … RESET default_transaction_isolation;",
            )
        )
    found += _judge_locks(values, catalog)
    found += _judge_logins(values)
    found += _judge_notes(values, local=local)
    return found


def _judge_locks(values: Mapping[str, str], catalog: Catalog) -> list[Finding]:
    each = int(values["max_locks_per_transaction"])
    slots = each * (int(values["max_connections"]) + int(values["max_prepared_transactions"]))
    if slots >= 1.25 * catalog.tables:
        return []
    needed = -(-catalog.tables * 3 // 2 // int(values["max_connections"]))
    return [
        warning(
            "postgresql.locks",
            "pg_dump of the whole database, which locks every table, runs out of locks",
            seen=f"room for {slots:,} (max_locks_per_transaction = {each}), {catalog.tables:,} tables",
            expected="a quarter more than there are tables",
            remedy=f"As a superuser: ALTER SYSTEM SET max_locks_per_transaction = {needed}; and restart.",
        )
    ]


def _judge_logins(values: Mapping[str, str]) -> list[Finding]:
    if values["password_encryption"] == "scram-sha-256":  # noqa: S105 - a setting
        return []
    return [
        warning(
            "postgresql.passwords",
            "New passwords are stored as MD5",
            seen=f"password_encryption = {values['password_encryption']}",
            expected="scram-sha-256",
            remedy="ALTER SYSTEM RESET password_encryption; reload, and set the passwords anew (`tenantry bootstrap`).",
        )
    ]


def _judge_notes(values: Mapping[str, str], *, local: bool) -> list[Finding]:
    found = []
    if values["jit"] == "on":
        found.append(
            note(
                "postgresql.jit",
                "Just-in-time compilation is on: it gains nothing in short statements, and its memory stays",
                seen="jit = on",
                expected="jit = off",
                remedy="ALTER SYSTEM SET jit = off; and reload.",
            )
        )
    if values["idle_session_timeout"] != "0":
        found.append(
            warning(
                "postgresql.idle-sessions",
                "PostgreSQL closes idle connections, which pools keep on purpose: a request then is slower",
                seen=f"idle_session_timeout = {values['idle_session_timeout']} ms",
                expected="0",
                remedy="ALTER SYSTEM RESET idle_session_timeout; transactions have time-outs of their own.",
            )
        )
    if local:
        return found
    if "pg_stat_statements" not in values.get("shared_preload_libraries", ""):
        found.append(
            note(
                "postgresql.statements",
                "Which statements take the time is not recorded",
                seen="no pg_stat_statements",
                remedy="Add pg_stat_statements to shared_preload_libraries. It knows statements by their tables' ids: "
                "with many schemas raise pg_stat_statements.max.",
            )
        )
    if values["archive_mode"] == "off":
        found.append(
            note(
                "postgresql.archive",
                "There is no archive of the WAL here, so no way back to a moment before a mistake",
                seen="archive_mode = off",
                remedy="Set up continuous archiving, unless the provider of the server does it in a way of its own.",
            )
        )
    return found


async def check_vacuum(site: Site) -> list[Finding]:
    (facts,) = await site.catalog(_FACTS)
    values = await _settings(site)
    found = judge_vacuum(values, relations=facts["relations"])
    oldest = 0
    for row in await site.catalog(_AGES):
        oldest = max(oldest, row["xid"])
        found += judge_age(row["name"], row["xid"], row["mxid"])
    bloated = [
        f"{row['name']}: {row['dead']:,} dead, {row['live']:,} living"
        for row in await site.catalog(_DEAD)
        if row["dead"] > 10_000 and row["dead"] > row["live"]
    ]
    if bloated:
        found.append(
            warning(
                "vacuum.catalog",
                "Dead rows outnumber the living in the catalog: every look at a table gets slower",
                seen="; ".join(bloated),
                expected="fewer dead rows than living ones",
                remedy="VACUUM pg_catalog.…; lower autovacuum_vacuum_scale_factor; `sessions` says what holds it up.",
            )
        )
    return found or [ok("vacuum.good", "Autovacuum is on, and keeps up", seen=f"oldest transaction id {oldest:,} ago")]


def judge_vacuum(values: Mapping[str, str], *, relations: int) -> list[Finding]:
    """Autovacuum's settings, for so many relations."""
    if values["autovacuum"] == "off" or values["track_counts"] == "off":
        return [
            critical(
                "vacuum.off",
                "Nothing is vacuumed: tables grow without end, and in time PostgreSQL refuses to write",
                seen=f"autovacuum = {values['autovacuum']}, track_counts = {values['track_counts']}",
                expected="on",
                remedy="ALTER SYSTEM RESET autovacuum; ALTER SYSTEM RESET track_counts; and reload.",
            )
        ]
    found = []
    workers, naptime = int(values["autovacuum_max_workers"]), int(values["autovacuum_naptime"])
    if naptime > 300:
        found.append(
            warning(
                "vacuum.seldom",
                "Autovacuum looks seldom",
                seen=f"autovacuum_naptime = {naptime} s",
                expected="a minute, as by default",
                remedy="ALTER SYSTEM RESET autovacuum_naptime; and reload.",
            )
        )
    delay = float(values["autovacuum_vacuum_cost_delay"])
    limit = int(values["autovacuum_vacuum_cost_limit"])
    limit = int(values["vacuum_cost_limit"]) if limit < 0 else limit
    if relations > _MANY and (workers < 5 or (delay > 0 and limit / delay < 500)):
        found.append(
            warning(
                "vacuum.slow",
                "Autovacuum's defaults are for fewer tables than there are",
                seen=f"{relations:,} relations, {workers} workers, cost limit {limit} with a delay of {delay:g} ms",
                expected="5 workers or more, cost limit 1000 with 2 ms",
                remedy="ALTER SYSTEM SET autovacuum_max_workers = 6; and autovacuum_vacuum_cost_limit = 2000.",
            )
        )
    return found


def judge_age(database: str, xid: int, mxid: int) -> list[Finding]:
    """How many transactions ago the oldest row that was not frozen may have been written; likewise multixacts."""
    worst = max(xid, mxid)
    if worst < _AGE_WARNING:
        return []
    tell = critical if worst >= _AGE_CRITICAL else warning
    return [
        tell(
            "vacuum.wraparound",
            "Old rows are not frozen in time: at two billion transactions PostgreSQL refuses to write",
            seen=f"{database}: {xid:,} transactions, {mxid:,} multixacts",
            expected=f"less than {_AGE_WARNING:,}",
            remedy="See `sessions` for what holds vacuum up; then VACUUM (FREEZE) as a superuser.",
        )
    ]
