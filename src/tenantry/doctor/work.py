"""Whether work gets done: jobs, schedules, operations, rollouts, the warm pool, and the seals of audit trails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from tenantry.doctor.findings import Finding, critical, note, ok, some, warning
from tenantry.tenancy.migrations import head
from tenantry.tenancy.release import served_revisions
from tenantry.tenancy.revision_files import HAS_SCHEMA

if TYPE_CHECKING:
    from tenantry.doctor.site import Site

__all__ = ("check_audit_trails", "check_jobs", "check_operations")

_SLOW, _STUCK = 60, 600
"""Seconds that a job may wait for a relay, and an operation for a provisioner."""
_UNSEALED = 3600
"""Seconds. Seals are made every five minutes, spread over as many."""

# Suspended and archived organizations' jobs wait on purpose, and so do their schedules.
_JOBS = """
SELECT count(*) FILTER (WHERE o.status = 'pending' AND o.due <= now()) AS pending,
       extract(epoch FROM now() - min(o.due) FILTER (WHERE o.status = 'pending' AND o.due <= now()))::float8 AS oldest,
       count(*) FILTER (WHERE o.status = 'later' AND o.due < now() - interval '1 minute') AS unripe,
       count(*) FILTER (WHERE o.status = 'relayed' AND o.again_at < now() - interval '1 minute') AS lost,
       count(*) FILTER (WHERE o.status = 'dead') AS dead
  FROM platform.outbox o LEFT JOIN platform.tenant t ON t.id = o.tenant_id
 WHERE o.tenant_id IS NULL OR t.status = 'active' OR o.status = 'dead'
"""
_DEAD = """
SELECT o.name, count(*) AS number FROM platform.outbox o WHERE o.status = 'dead' GROUP BY 1 ORDER BY 2 DESC LIMIT 5
"""
_SCHEDULES = """
SELECT count(*) AS number, extract(epoch FROM now() - min(s.next_run_at))::float8 AS oldest,
       (array_agg(DISTINCT s.name))[1:5] AS names
  FROM platform.schedule s LEFT JOIN platform.tenant t ON t.id = s.tenant_id
 WHERE s.enabled AND s.next_run_at < now() - interval '10 minutes' AND (s.tenant_id IS NULL OR t.status = 'active')
"""
_OPERATIONS = """
SELECT o.kind, t.slug, o.attempts, o.error, extract(epoch FROM now() - o.not_before)::float8 AS waiting
  FROM platform.operation o JOIN platform.tenant t ON t.id = o.tenant_id
 WHERE o.status = 'pending' AND o.not_before < now() - make_interval(secs => $1) ORDER BY o.not_before LIMIT 100
"""
_FAILED = """
SELECT o.kind, t.slug, o.error FROM platform.operation o JOIN platform.tenant t ON t.id = o.tenant_id
 WHERE o.status = 'failed' AND o.finished_at > now() - interval '1 day'
   AND NOT EXISTS (SELECT FROM platform.operation n WHERE n.tenant_id = o.tenant_id AND n.kind = o.kind
                      AND n.status = 'done' AND n.finished_at > o.finished_at)
 ORDER BY o.finished_at DESC LIMIT 100
"""
_UNPURGED = """
SELECT slug FROM platform.tenant WHERE status = 'purging' AND purge_after < now() - interval '1 hour'
 ORDER BY 1 LIMIT 100
"""
_ROLLOUT = """
SELECT r.status, r.target, r.halted_reason,
       extract(epoch FROM now() - greatest(r.updated_at, max(t.finished_at), max(t.not_before)))::float8 AS still
  FROM platform.rollout r LEFT JOIN platform.rollout_tenant t ON t.rollout_id = r.id
 WHERE r.id = (SELECT id FROM platform.rollout ORDER BY id DESC LIMIT 1) GROUP BY r.id
"""
_WARM = "SELECT count(*) FROM platform.warm_schema WHERE revision = $1"
_SAMPLE = f"""
SELECT t.id, t.slug FROM platform.tenant t
 WHERE {HAS_SCHEMA} AND t.status = 'active' AND t.revision = ANY($2::text[]) ORDER BY random() LIMIT $1
"""  # noqa: S608 - a constant
_SEALS = """
SELECT extract(epoch FROM now() - min(e.occurred_at))::float8 AS oldest, count(*) AS number
  FROM (SELECT occurred_at FROM audit_event
         WHERE id > coalesce((SELECT last_event_id FROM audit_seal ORDER BY sequence DESC LIMIT 1),
                             '00000000-0000-0000-0000-000000000000'::uuid)
         ORDER BY id LIMIT 10000) e
"""


async def check_jobs(site: Site) -> list[Finding]:
    (row,) = await site.control(_JOBS)
    found = []
    if (row["pending"] and row["oldest"] > _SLOW) or row["unripe"]:
        oldest = row["oldest"] or 0
        tell = critical if oldest > _STUCK else warning
        found.append(
            tell(
                "jobs.lag",
                "Jobs wait in the outbox: no worker takes them to the queues",
                seen=f"{row['pending'] + row['unripe']:,} due, the oldest for {oldest:,.0f} s",
                expected=f"at most {_SLOW} s",
                remedy="Start `tenantry worker`, see its log; add more where they are busy (`tenantry jobs stats`).",
            )
        )
    if row["lost"]:
        found.append(
            warning(
                "jobs.lost",
                "Jobs are overdue in the queues, and nobody relays them again",
                seen=f"{row['lost']:,}",
                expected="none for longer than a minute",
                remedy="Start `tenantry worker`, and see its log.",
            )
        )
    if row["dead"]:
        names = [f"{dead['number']:,} {dead['name']}" for dead in await site.control(_DEAD)]
        found.append(
            warning(
                "jobs.dead",
                "Jobs have no attempt left, and wait for somebody to look",
                seen=some(names),
                expected="none",
                remedy="`tenantry jobs list --status dead`, then `tenantry jobs retry` or `cancel`.",
            )
        )
    (late,) = await site.control(_SCHEDULES)
    if late["number"]:
        found.append(
            warning(
                "jobs.schedules",
                "Schedules are overdue",
                seen=f"{late['number']:,}, the oldest by {late['oldest'] / 60:,.0f} min: {some(late['names'])}",
                expected="at most a minute",
                remedy="Start `tenantry worker`: each of them looks after the schedules.",
            )
        )
    return found or [ok("jobs.done", "Jobs do not wait, and none is dead", seen=f"{row['pending']:,} due")]


async def check_operations(site: Site) -> list[Finding]:
    found = []
    if rows := await site.control(_OPERATIONS, _SLOW):
        tell = critical if rows[0]["waiting"] > _STUCK else warning
        found.append(
            tell(
                "operations.stuck",
                "Operations wait for the provisioner",
                seen=some([f"{row['kind']} {row['slug']} ({row['waiting']:,.0f} s)" for row in rows]),
                expected=f"at most {_SLOW} s",
                remedy="Start `tenantry provisioner`, and see its log.",
            )
        )
    if rows := await site.control(_FAILED):
        found.append(
            warning(
                "operations.failed",
                "Operations have failed within a day, and none of their kind has succeeded since",
                seen=some([f"{row['kind']} {row['slug']}: {(row['error'] or '')[:100]}" for row in rows]),
                expected="none",
                remedy="`tenantry tenants show` has the error; correct it, and ask again.",
            )
        )
    if rows := await site.control(_UNPURGED):
        found.append(
            warning(
                "operations.purges",
                "Organizations' grace time is over, and they are not purged",
                seen=some([row["slug"] for row in rows]),
                expected="purged within minutes",
                remedy="Start `tenantry provisioner`, and see its log.",
            )
        )
    for row in await site.control(_ROLLOUT):
        if row["status"] == "halted":
            found.append(
                warning(
                    "operations.rollout-halted",
                    "The last rollout was halted",
                    seen=f"to {row['target']}: {(row['halted_reason'] or '')[:200]}",
                    expected="done",
                    remedy="`tenantry migrate status`; correct it, then `tenantry migrate resume`.",
                )
            )
        elif row["status"] == "running" and row["still"] > _STUCK:
            found.append(
                warning(
                    "operations.rollout-stuck",
                    "A rollout is running, and nothing moves",
                    seen=f"to {row['target']}, nothing for {row['still']:,.0f} s",
                    expected="a tenant at least every ten minutes",
                    remedy="Start `tenantry provisioner`, or `tenantry migrate resume`.",
                )
            )
    found += await _warm(site)
    return found or [ok("operations.done", "Nothing waits for the provisioner")]


async def _warm(site: Site) -> list[Finding]:
    wanted, ready = site.settings.warm_pool_size, (await site.control(_WARM, head("tenant")))[0][0]
    if not wanted or ready * 2 >= wanted:
        return []
    seen, expected = f"{ready} of {wanted}", "all of them within seconds"
    remedy = "Start `tenantry provisioner`, and see its log."
    if ready:
        return [
            note("operations.warm-pool", "The warm pool is half empty", seen=seen, expected=expected, remedy=remedy)
        ]
    return [
        warning(
            "operations.warm-pool",
            "The warm pool is empty: each new organization waits for its schema",
            seen=seen,
            expected=expected,
            remedy=remedy,
        )
    ]


async def check_audit_trails(site: Site) -> list[Finding]:
    rows = await site.control(_SAMPLE, site.options.sample or 1000, sorted(served_revisions()))
    late: dict[str, float] = {}
    for row in rows:
        try:
            (seal,) = await site.tenant(row["id"], _SEALS)
        except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError):
            # The schema is not as it should be, which is for `fingerprints` and `roles` to say.
            continue
        if seal["number"] and seal["oldest"] > _UNSEALED:
            late[row["slug"]] = seal["oldest"]
    if not late:
        return [
            ok("audit-trails.sealed", "Audit trails are sealed up to the last hour", seen=f"{len(rows):,} looked at")
        ]
    tell = critical if max(late.values()) > 24 * 3600 else warning
    return [
        tell(
            "audit-trails.behind",
            "Audit trails are not sealed: what the owner of the database changed there now, nobody would notice",
            seen=some([f"{slug} ({seconds / 3600:,.1f} h)" for slug, seconds in sorted(late.items())]),
            expected="seals within minutes",
            remedy="See `jobs`: seal_audit runs in the workers. `tenantry schedules list` shows whether it is on.",
        )
    ]
