"""Schemas: the ones that should be there, nothing beside them, and each as its revision makes it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy import text

from tenantry.doctor.findings import Finding, critical, note, ok, some, warning
from tenantry.platform.provisioning.reference import find_drift
from tenantry.tenancy.migrations import head
from tenantry.tenancy.release import served_range
from tenantry.tenancy.revision_files import HAS_SCHEMA
from tenantry.tenancy.revisions import UnknownRevisionError, revisions
from tenantry.tenancy.scope import SHARED_SCHEMA

if TYPE_CHECKING:
    from uuid import UUID

    from tenantry.doctor.site import Site

__all__ = ("check_fingerprints", "check_public", "check_revisions", "check_schemas", "check_shared_schema")

_AT_ONCE = 2
_EVERY = 1_000_000
_DANGEROUS = ("dblink", "postgres_fdw", "file_fdw", "adminpack", "plpython3u", "plperlu", "pltclu")
"""Extensions by which a statement reaches another database, another server or a file."""

_PUBLIC = """
SELECT pg_describe_object(d.classid, d.objid, 0) AS name
  FROM pg_depend d
 WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = to_regnamespace('public')
   AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.classid AND e.objid = d.objid AND e.deptype = 'e')
 ORDER BY 1 LIMIT 100
"""
_EXTENSIONS = "SELECT extname::text AS name FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1"
_UNTRUSTED = "SELECT lanname::text AS name FROM pg_language WHERE lanname NOT IN ('internal', 'c') AND NOT lanpltrusted"
_OTHERS = """
SELECT n.nspname::text AS name FROM pg_namespace n
 WHERE n.nspname !~ '^(pg_|t_[0-9a-f]{32}$|kept_[0-9a-f]{32}_[0-9]{20}$)'
   AND n.nspname NOT IN ('information_schema', 'public', $1)
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid
                      AND d.deptype = 'e')
 ORDER BY 1 LIMIT 100
"""
# One statement, so that a schema and its row are seen together, or neither.
_PAIRS = f"""
WITH space AS (
    SELECT nspname::text AS name FROM pg_catalog.pg_namespace WHERE nspname ~ '^t_[0-9a-f]{{32}}$'
), known AS (
    SELECT 't_' || replace(t.id::text, '-', '') AS name, t.slug, t.status, ({HAS_SCHEMA}) AS has_schema,
           t.archive_key IS NOT NULL AS archived
      FROM platform.tenant t
), warm AS (
    SELECT 't_' || replace(w.id::text, '-', '') AS name FROM platform.warm_schema w
), found AS (
    SELECT s.name, CASE WHEN k.status = 'purged' THEN 'purged' WHEN k.archived THEN 'archived'
                        WHEN k.name IS NULL AND w.name IS NULL THEN 'orphan' END AS wrong
      FROM space s LEFT JOIN known k USING (name) LEFT JOIN warm w USING (name)
    UNION ALL
    SELECT k.slug, 'missing' FROM known k WHERE k.has_schema AND NOT EXISTS (SELECT FROM space s WHERE s.name = k.name)
    UNION ALL
    SELECT w.name, 'cold' FROM warm w WHERE NOT EXISTS (SELECT FROM space s WHERE s.name = w.name)
)
SELECT wrong, count(*) AS number, (array_agg(name ORDER BY name))[1:5] AS names
  FROM found WHERE wrong IS NOT NULL GROUP BY 1
"""  # noqa: S608 - a constant
# A role that has a privilege in some database is that database's tenant; of one that has none, nothing is left.
_ROLES = """
SELECT r.rolname::text AS name FROM pg_roles r
 WHERE r.rolname ~ '^t_[0-9a-f]{32}$' AND to_regnamespace(r.rolname::text) IS NULL
   AND NOT EXISTS (SELECT FROM pg_shdepend d WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid
                      AND d.dbid <> 0)
 ORDER BY 1 LIMIT 100
"""
_REVISIONS = f"""
SELECT t.revision, count(*) AS number, (array_agg(t.slug ORDER BY t.slug))[1:5] AS slugs
  FROM platform.tenant t WHERE {HAS_SCHEMA} GROUP BY 1 ORDER BY 1
"""  # noqa: S608 - a constant
_RUNNING = "SELECT count(*) FROM platform.rollout WHERE status = 'running'"
_SAMPLE = f"SELECT t.id, t.slug FROM platform.tenant t WHERE {HAS_SCHEMA} ORDER BY random() LIMIT $1"  # noqa: S608 - a constant

_WRONG: dict[str, tuple[str, str]] = {
    "orphan": ("Schemas that belong to no organization", "Look whose they were, and DROP SCHEMA and ROLE."),
    "archived": (
        "Organizations are archived, and their schemas are still there",
        "`tenantry tenants show` says what happened; once the archive is good, DROP SCHEMA and ROLE.",
    ),
    "cold": ("The warm pool lists schemas that are not there", "Start the provisioner: it drops and makes them anew."),
}


async def check_public(site: Site) -> list[Finding]:
    found = []
    if names := [row["name"] for row in await site.catalog(_PUBLIC)]:
        found.append(
            warning(
                "public.not-empty",
                "There is something in the schema public, where nothing of ours belongs",
                seen=some(names),
                expected="an empty schema, or none",
                remedy="Find out who made it (a migration without a search_path?), move or DROP it.",
            )
        )
    if names := [row["name"] for row in await site.catalog(_OTHERS, SHARED_SCHEMA)]:
        found.append(
            warning(
                "public.other-schemas",
                "There are schemas that are not ours",
                seen=some(names),
                expected=f"{SHARED_SCHEMA}, and one of each organization",
                remedy="Give what is in them a database of its own.",
            )
        )
    extensions = [row["name"] for row in await site.catalog(_EXTENSIONS)]
    languages = [row["name"] for row in await site.catalog(_UNTRUSTED)]
    if dangerous := sorted({*languages, *(name for name in extensions if name in _DANGEROUS)}):
        found.append(
            warning(
                "public.extensions",
                "Extensions by which a statement may get out of the database",
                seen=some(dangerous),
                expected="none of them",
                remedy="DROP EXTENSION …; none of ours needs it.",
            )
        )
    return found or [
        ok(
            "public.empty",
            "`public` is empty, and no schema is a stranger's",
            seen=f"extensions: {some(extensions) or 'none'}",
        )
    ]


async def check_schemas(site: Site) -> list[Finding]:
    found = []
    for row in await site.control(_PAIRS):
        seen = f"{row['number']:,}: {', '.join(row['names'])}"
        if row["wrong"] == "missing":
            found.append(
                critical(
                    "schemas.missing",
                    "Organizations whose schema is not there",
                    seen=seen,
                    expected="a schema of each",
                    remedy="Suspend them, and restore their schemas from a backup.",
                )
            )
        elif row["wrong"] == "purged":
            found.append(
                critical(
                    "schemas.purged",
                    "Organizations that were purged, and whose data are still there",
                    seen=seen,
                    expected="no schema",
                    remedy="A backup was restored, it seems: DROP SCHEMA … CASCADE, and DROP ROLE.",
                )
            )
        else:
            summary, remedy = _WRONG[row["wrong"]]
            found.append(
                warning("schemas.leftover", summary, seen=seen, expected="a row for each schema", remedy=remedy)
            )
    if names := [row["name"] for row in await site.catalog(_ROLES)]:
        found.append(
            note(
                "schemas.roles",
                "Roles of organizations that have no schema in any database",
                seen=some(names),
                remedy="DROP ROLE: each of them makes every backend's list of memberships longer.",
            )
        )
    return found or [ok("schemas.paired", "Every schema has its organization, and every organization its schema")]


async def check_revisions(site: Site) -> list[Finding]:
    served = served_range()
    known = [revision.id for revision in revisions("tenant")]
    running = (await site.control(_RUNNING))[0][0]
    found, tenants = [], 0
    for row in await site.control(_REVISIONS):
        revision, tenants = row["revision"], tenants + row["number"]
        seen = f"{row['number']:,} at {revision}: {', '.join(row['slugs'])}"
        if revision not in served.revisions:
            newer = revision not in known
            found.append(
                critical(
                    "revisions.not-served",
                    "Organizations that this release cannot serve: their requests are answered 503",
                    seen=seen,
                    expected=f"revisions {served.oldest} to {served.newest}",
                    remedy="A newer release has migrated them: deploy it."
                    if newer
                    else "Run `tenantry migrate tenants`.",
                )
            )
        elif revision != served.newest and not running:
            found.append(
                warning(
                    "revisions.behind",
                    "Organizations are behind, and no rollout is running",
                    seen=seen,
                    expected=served.newest,
                    remedy="Run `tenantry migrate tenants`, or `tenantry migrate resume`.",
                )
            )
    return found or [
        ok(
            "revisions.served",
            "Every organization is at a revision that this release serves",
            seen=f"{tenants:,} organizations",
        )
    ]


async def check_shared_schema(site: Site) -> list[Finding]:
    expected = head("shared")
    async with site.owner.connect() as connection:
        await connection.execution_options(postgresql_readonly=True)
        there = await connection.scalar(text("SELECT to_regclass('platform.alembic_version') IS NOT NULL"))
        found = await connection.scalar(text("SELECT version_num FROM platform.alembic_version")) if there else None
    if found == expected:
        return [ok("shared-schema.head", "The shared schema is at this release's revision", seen=found)]
    newer = found is not None and found not in [revision.id for revision in revisions("shared")]
    remedy = "Deploy the release that has migrated it." if newer else "Run `tenantry migrate shared`."
    tell = warning if newer else critical
    return [
        tell(
            "shared-schema.revision",
            "The shared schema is of a newer release" if newer else "The shared schema is not this release's",
            seen=found or "no shared schema",
            expected=expected,
            remedy=remedy,
        )
    ]


async def check_fingerprints(site: Site) -> list[Finding]:
    sample = site.options.sample
    rows = await site.control(_SAMPLE, _EVERY if sample is None else sample)
    waiting, wrong, unknown = iter(rows), dict[str, str](), list[str]()

    async def compare(slug: str, tenant_id: UUID) -> None:
        try:
            drift = await find_drift(site.owner, tenant_id)
        except UnknownRevisionError:
            unknown.append(slug)
            return
        if drift is not None and drift.differences:
            more = f" and {len(drift.differences) - 1:,} more" if len(drift.differences) > 1 else ""
            wrong[slug] = f"{slug}: {str(drift.differences[0])[:200]}{more}"

    async def work() -> None:
        for row in waiting:
            await compare(row["slug"], row["id"])

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(work())
    found = []
    if wrong:
        found.append(
            critical(
                "fingerprints.drift",
                f"{len(wrong):,} of {len(rows):,} schemas are not what their revision makes",
                seen="; ".join([wrong[slug] for slug in sorted(wrong)][:3]),
                expected="a schema as Alembic makes it, role and privileges included",
                remedy=f"`tenantry tenants verify {' '.join(sorted(wrong)[:3])}` names all; undo what was done.",
            )
        )
    if unknown:
        found.append(
            note(
                "fingerprints.unknown",
                "Schemas at revisions of another release were not compared",
                seen=some(sorted(unknown)),
                remedy="See `revisions`.",
            )
        )
    compared = len(rows) - len(unknown)
    return found or [ok("fingerprints.match", "Schemas are what their revisions make", seen=f"{compared:,} compared")]
