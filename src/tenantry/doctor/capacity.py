"""How many more organizations one database takes, by what each of them makes of it.

The model is a handful of straight lines, so that its figures can be argued with:

- **memory of backends**: a backend keeps what it has seen of every table and index: about 5.6 KiB each, thus about
  1 MiB for a tenant (`python -m benchmarks.relation_cache`, PostgreSQL 18; 45 tables, 180 tables and indexes). Every
  pooled backend comes to see every tenant unless connections are recycled. Half of the machine's memory may go to that.
- **catalog in memory**: what PostgreSQL's own tables take for each tenant; all of it is to fit into half of
  `shared_buffers`, or every visit reads from the disk.
- **locks**: a dump of the whole database locks every table at once.
- **roles**: at each new tenant every backend puts its list of memberships together again: 36 ms with 10,000 roles. At
  50,000 that is a fifth of a second, of every backend.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tenantry.doctor.findings import Finding, note, ok, warning
from tenantry.doctor.sessions import planned_connections

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tenantry.doctor.site import Site

__all__ = ("Measured", "check_capacity", "judge_capacity", "limits")

BYTES_PER_RELATION = 5_750
"""Of a backend's memory, for each table or index that it has seen."""
_MEMORY = "memory of backends"
_ROLES = 50_000
_FRESH_CATALOG = 8 * 1024 * 1024
"""Bytes of the catalog of a database without tenants."""
_FRESH_SCHEMA = (180, 45, 900_000)
"""Tables and indexes, tables, and bytes of catalog that a tenant takes, where there is none to measure."""
_SOON = 60
_NEVER = 1_000_000
_MIB = 1024 * 1024

_MEASURE = """
WITH space AS (SELECT oid FROM pg_namespace WHERE nspname ~ '^t_[0-9a-f]{32}$')
SELECT (SELECT count(*) FROM space) AS schemas,
       count(*) FILTER (WHERE c.relkind IN ('r', 'p', 'i', 'I', 'S')) AS relations,
       count(*) FILTER (WHERE c.relkind IN ('r', 'p')) AS tables,
       (SELECT count(*) FROM pg_class) AS everything,
       (SELECT sum(pg_total_relation_size(k.oid))::bigint FROM pg_class k
         WHERE k.relnamespace = 'pg_catalog'::regnamespace AND k.relkind = 'r' AND NOT k.relisshared) AS catalog,
       (SELECT setting::bigint * 8192 FROM pg_settings WHERE name = 'shared_buffers') AS buffers,
       current_setting('max_locks_per_transaction')::bigint
       * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int) AS locks,
       (SELECT count(*) FROM pg_class k WHERE k.relkind IN ('r', 'p')) AS all_tables
  FROM pg_class c JOIN space s ON s.oid = c.relnamespace
"""
_GROWTH = """
SELECT max(day) - min(day) AS days,
       (array_agg(schemas ORDER BY day DESC))[1] - (array_agg(schemas ORDER BY day))[1] AS more
  FROM platform.catalog_statistic WHERE day > current_date - 31
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """What there is; sizes in bytes."""

    schemas: int
    relations: int
    """Tables, indexes and sequences of all tenants together."""
    tables: int
    catalog: int
    buffers: int
    locks: int
    other_tables: int
    """That are no tenant's."""
    backends: int
    memory: int
    recycled: int | None = None
    """Tenants after which a connection is replaced; None if it is kept whatever it has seen."""


def limits(measured: Measured) -> dict[str, int]:
    """How many tenants fit, by what ends first."""
    if measured.schemas:
        relations = measured.relations / measured.schemas
        tables = measured.tables / measured.schemas
        catalog = max(1.0, (measured.catalog - _FRESH_CATALOG) / measured.schemas)
    else:
        relations, tables, catalog = _FRESH_SCHEMA
    return {
        _MEMORY: _fit_memory(measured, relations * BYTES_PER_RELATION),
        "catalog in shared_buffers": int((measured.buffers / 2 - _FRESH_CATALOG) / catalog),
        "locks of a dump": int((measured.locks / 1.25 - measured.other_tables) / tables),
        "roles": _ROLES,
    }


def _fit_memory(measured: Measured, each: float) -> int:
    """`each` is what a backend keeps of one tenant."""
    at_most = measured.memory / 2 / measured.backends / each
    if measured.recycled is not None and measured.recycled <= at_most:
        # However many there are, no backend lives to see more than it has room for.
        return _NEVER
    return int(at_most)


async def check_capacity(site: Site) -> list[Finding]:
    (row,) = await site.catalog(_MEASURE)
    options = site.options
    planned = planned_connections(
        site.settings, api_replicas=options.api_replicas, worker_replicas=options.worker_replicas
    )
    memory = options.memory
    if memory is None and site.embedded:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    measured = Measured(
        schemas=row["schemas"],
        relations=row["relations"],
        tables=row["tables"],
        catalog=row["catalog"],
        buffers=row["buffers"],
        locks=row["locks"],
        other_tables=row["all_tables"] - row["tables"],
        backends=planned,
        memory=memory or 4 * row["buffers"],
        recycled=site.settings.database_connection_tenants,
    )
    (growth,) = await site.control(_GROWTH)
    daily = growth["more"] / growth["days"] if growth["days"] else 0.0
    return judge_capacity(measured, daily=daily, everything=row["everything"], assumed=memory is None)


def judge_capacity(measured: Measured, *, daily: float, everything: int, assumed: bool) -> list[Finding]:
    """`daily` is by how many schemas there are more each day.

    With `assumed`, the memory is guessed from `shared_buffers`, which PostgreSQL's manual (section 19.4) wants to be a
    quarter of it. Where it is not, nothing is to be said of what fits but that somebody should tell.
    """
    found = limits(measured)
    sure = {name: number for name, number in found.items() if not assumed or name != _MEMORY}
    first = min(sure, key=lambda name: sure[name])
    most = max(0, sure[first])
    left = most - measured.schemas
    seen = (
        f"{measured.schemas:,} schemas, {everything:,} relations, catalog {measured.catalog / _MIB:,.0f} MiB; room for "
        f"{most:,} by {first}, {max(0, left):,} more ({_others(found, first)}; {measured.backends} backends, "
        f"{measured.memory / _MIB:,.0f} MiB of memory{' assumed' if assumed else ''})"
    )
    days = left / daily if daily > 0 else None
    if days is not None:
        seen += f"; {daily:+.1f} a day, full in {max(0.0, days):,.0f} days"
    told: list[Finding] = []
    if assumed and found[_MEMORY] < measured.schemas * 1.25:
        told.append(
            note(
                "capacity.memory-unknown",
                "Backends that come to see every organization would take more memory than there may be",
                seen=f"{_size(measured)} in each of {measured.backends} backends; "
                f"{measured.memory / _MIB:,.0f} MiB of memory assumed (four times shared_buffers)",
                remedy="Give the machine's memory with --database-memory; raise shared_buffers to a quarter of it.",
            )
        )
    if left < measured.schemas / 4 or left <= 0 or (days is not None and days < _SOON):
        told.append(
            warning(
                "capacity.soon",
                "The database is outgrown, or will be soon",
                seen=seen,
                expected=f"room for a quarter more, and for {_SOON} days",
                remedy=_REMEDIES[first],
            )
        )
    else:
        told.append(ok("capacity.room", "There is room for more organizations", seen=seen))
    return told


def _size(measured: Measured) -> str:
    return f"{measured.relations * BYTES_PER_RELATION / _MIB:,.0f} MiB"


def _others(found: Mapping[str, int], first: str) -> str:
    return ", ".join(f"{name}: {number:,}" for name, number in found.items() if name != first)


_REMEDIES = {
    _MEMORY: "Fewer connections (a pooler, smaller pools), or recycled ones; more memory, given by "
    "--database-memory where shared_buffers is not a quarter of it.",
    "catalog in shared_buffers": "Raise shared_buffers, and restart.",
    "locks of a dump": "Raise max_locks_per_transaction, and restart.",
    "roles": "Give the organizations to come a second deployment.",
}
