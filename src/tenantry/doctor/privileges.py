"""Privileges in the database: who may do what with which object, read from the catalog's own lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantry.doctor.findings import Finding, critical, ok, some, warning
from tenantry.tenancy.bootstrap import APP_ROLE, OWNER_ROLE, TENANT_GROUP_ROLE, hardening_report
from tenantry.tenancy.scope import CONTROL_ROLE, SHARED_SCHEMA

if TYPE_CHECKING:
    from tenantry.doctor.site import Site

__all__ = ("check_hardening", "check_privileges")

# Every privilege and every ownership of a role that is not built in has a row in pg_shdepend, whatever the object is:
# one look there sees them all. Those of the database itself have no database.
_HOLDERS = """
WITH held AS (
    -- Names by look-up, not by join: without fresh statistics, the planner would compare every row with every schema.
    SELECT pg_get_userbyid(d.refobjid)::text AS role, d.deptype, d.classid, d.objid, d.objsubid,
           coalesce(c.relnamespace, p.pronamespace, a.defaclnamespace,
                    CASE WHEN d.classid = 'pg_namespace'::regclass THEN d.objid END)::regnamespace::text AS space
      FROM pg_shdepend d
      LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
      LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
      LEFT JOIN pg_default_acl a ON d.classid = 'pg_default_acl'::regclass AND a.oid = d.objid
     WHERE d.refclassid = 'pg_authid'::regclass AND d.deptype IN ('a', 'o')
       AND d.refobjid <> (SELECT oid FROM pg_roles WHERE rolname = $1)
       AND (d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
            OR (d.classid = 'pg_database'::regclass
                AND d.objid = (SELECT oid FROM pg_database WHERE datname = current_database())))
)
SELECT h.role, h.deptype::text AS kind, pg_describe_object(h.classid, h.objid, h.objsubid) AS object
  FROM held h
 WHERE NOT (h.deptype = 'a' AND h.role ~ '^t_[0-9a-f]{32}$'
            AND regexp_replace(h.space::text, '^kept_([0-9a-f]{32})_[0-9]{20}$', 't_\\1') IS NOT DISTINCT FROM h.role)
   AND NOT (h.role = $2 AND h.deptype = 'a' AND h.classid = 'pg_database'::regclass)
   AND NOT (h.role = $3 AND h.deptype = 'a' AND h.space IS NOT DISTINCT FROM $5)
   AND NOT (h.role = $4 AND h.deptype = 'a' AND h.space IS NOT DISTINCT FROM $5
            AND h.classid IN ('pg_namespace'::regclass, 'pg_proc'::regclass))
 ORDER BY h.role, object LIMIT 200
"""
_EVERYBODY = """
WITH ours AS (
    SELECT oid, nspname, nspacl, nspowner FROM pg_namespace
     WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname !~ '^pg_(toast|temp_|toast_temp_)'
)
SELECT 'schema ' || nspname AS object, e.privilege_type AS right
  FROM ours, aclexplode(coalesce(nspacl, acldefault('n', nspowner))) e WHERE e.grantee = 0
UNION ALL
SELECT 'table ' || n.nspname || '.' || c.relname, e.privilege_type
  FROM pg_class c JOIN ours n ON n.oid = c.relnamespace, aclexplode(c.relacl) e
 WHERE c.relacl IS NOT NULL AND e.grantee = 0
UNION ALL
SELECT 'column ' || n.nspname || '.' || c.relname || '.' || t.attname, e.privilege_type
  FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid JOIN ours n ON n.oid = c.relnamespace,
       aclexplode(t.attacl) e
 WHERE t.attacl IS NOT NULL AND e.grantee = 0
UNION ALL
SELECT 'function ' || p.oid::regprocedure, e.privilege_type
  FROM pg_proc p JOIN ours n ON n.oid = p.pronamespace, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) e
 WHERE e.grantee = 0 AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                                        AND d.deptype = 'e')
UNION ALL
SELECT 'database ' || d.datname, e.privilege_type
  FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) e
 WHERE d.datname = current_database() AND e.grantee = 0 AND e.privilege_type <> 'TEMPORARY'
UNION ALL
SELECT 'whatever ' || pg_get_userbyid(a.defaclrole) || ' will make in ' || coalesce(n.nspname, 'the database'),
       e.privilege_type
  FROM pg_default_acl a LEFT JOIN pg_namespace n ON n.oid = a.defaclnamespace, aclexplode(a.defaclacl) e
 WHERE e.grantee = 0
 ORDER BY 1 LIMIT 200
"""
# Of the shared schema: nobody changes the trail or a certificate, nobody but the owner the version.
_SHARED = """
SELECT pg_get_userbyid(e.grantee)::text AS role, c.relname::text AS name,
       string_agg(e.privilege_type || CASE WHEN e.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END, ', ') AS rights
  FROM pg_class c, aclexplode(c.relacl) e
 WHERE c.relnamespace = $1::text::regnamespace AND e.grantee <> c.relowner AND e.grantee <> 0
   AND (e.is_grantable OR e.privilege_type NOT IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
        OR (c.relname = 'alembic_version' AND e.privilege_type <> 'SELECT')
        OR (c.relname = 'audit_entry' AND e.privilege_type NOT IN ('SELECT', 'INSERT'))
        OR (c.relname IN ('purge_certificate', 'rollout_tenant') AND e.privilege_type <> 'SELECT'))
 GROUP BY 1, 2
UNION ALL
SELECT pg_get_userbyid(e.grantee)::text, 'the schema', e.privilege_type
  FROM pg_namespace n, aclexplode(n.nspacl) e
 WHERE n.nspname = $1 AND e.grantee <> n.nspowner AND e.grantee <> 0 AND (e.privilege_type <> 'USAGE' OR e.is_grantable)
 ORDER BY 1, 2
"""
# A function of its owner's rights that looks names up in a path that its caller sets does what its caller wants.
_DEFINERS = """
SELECT p.oid::regprocedure::text AS name, pg_get_userbyid(p.proowner)::text AS owner,
       coalesce((SELECT s FROM unnest(p.proconfig) s WHERE s LIKE 'search\\_path=%' LIMIT 1), 'no search_path') AS path
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema')
   AND (pg_get_userbyid(p.proowner) <> $1 OR n.nspname <> $2
        OR NOT coalesce(p.proconfig && ARRAY['search_path=pg_catalog, pg_temp', 'search_path=pg_catalog',
                                             'search_path=""', 'search_path='], false))
 ORDER BY 1 LIMIT 100
"""
_DEFAULTS = """
SELECT pg_get_userbyid(a.defaclrole) || ' in ' || coalesce(n.nspname, 'the whole database') || ' for '
       || string_agg(DISTINCT pg_get_userbyid(e.grantee)::text, ', ') AS name
  FROM pg_default_acl a LEFT JOIN pg_namespace n ON n.oid = a.defaclnamespace, aclexplode(a.defaclacl) e
 WHERE e.grantee <> 0 AND e.grantee <> a.defaclrole
   AND NOT (n.nspname ~ '^(t_[0-9a-f]{32}|kept_[0-9a-f]{32}_[0-9]{20})$'
            AND pg_get_userbyid(e.grantee) = regexp_replace(n.nspname, '^kept_([0-9a-f]{32})_[0-9]{20}$', 't_\\1')
            AND e.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE', 'USAGE') AND NOT e.is_grantable)
 GROUP BY a.oid, a.defaclrole, n.nspname ORDER BY 1 LIMIT 100
"""
_DATABASE = """
SELECT pg_get_userbyid(datdba)::text AS owner FROM pg_database WHERE datname = current_database()
"""


async def check_privileges(site: Site) -> list[Finding]:
    found: list[Finding] = []
    rows = await site.catalog(_HOLDERS, OWNER_ROLE, APP_ROLE, CONTROL_ROLE, TENANT_GROUP_ROLE, SHARED_SCHEMA)
    if owned := [f"{row['object']} of {row['role']}" for row in rows if row["kind"] == "o"]:
        found.append(
            critical(
                "privileges.owned",
                f"Objects that do not belong to {OWNER_ROLE}: their owners may do anything with them",
                seen=some(owned),
                expected=f"everything is {OWNER_ROLE}'s",
                remedy=f"REASSIGN OWNED BY role TO {OWNER_ROLE}; or DROP them.",
            )
        )
    if held := [f"{row['role']} on {row['object']}" for row in rows if row["kind"] == "a"]:
        found.append(
            critical(
                "privileges.held",
                "Roles hold privileges that they should not have",
                seen=some(held),
                expected=f"{APP_ROLE}: none; an organization's role: in its own schema; {CONTROL_ROLE}: in "
                f"{SHARED_SCHEMA}; {TENANT_GROUP_ROLE}: functions there; others: none",
                remedy="REVOKE ALL ON … FROM …;",
            )
        )
    if public := [f"{row['right']} on {row['object']}" for row in await site.catalog(_EVERYBODY)]:
        found.append(
            critical(
                "privileges.public",
                "PUBLIC, which is every role, holds privileges",
                seen=some(public),
                expected="none outside PostgreSQL's own schemas",
                remedy="REVOKE ALL ON … FROM PUBLIC;",
            )
        )
    if shared := [
        f"{row['role']}: {row['rights']} on {row['name']}" for row in await site.catalog(_SHARED, SHARED_SCHEMA)
    ]:
        found.append(
            critical(
                "privileges.shared",
                "The control plane may change what is to be append-only, or give its rights away",
                seen=some(shared),
                expected="rows alone, no grant option; no change of the audit trail, certificates and versions",
                remedy=f"As {OWNER_ROLE}: REVOKE … ON {SHARED_SCHEMA}.… FROM …;",
            )
        )
    definers = await site.catalog(_DEFINERS, OWNER_ROLE, SHARED_SCHEMA)
    if names := [f"{row['name']} of {row['owner']} ({row['path']})" for row in definers]:
        found.append(
            critical(
                "privileges.definers",
                "Functions run with their owner's rights and are not as ours are",
                seen=some(names),
                expected=f"SECURITY DEFINER in {SHARED_SCHEMA} alone, {OWNER_ROLE}'s, with "
                "search_path = pg_catalog, pg_temp",
                remedy="ALTER FUNCTION … SET search_path = pg_catalog, pg_temp; or DROP it.",
            )
        )
    if defaults := [row["name"] for row in await site.catalog(_DEFAULTS)]:
        found.append(
            warning(
                "privileges.defaults",
                "What is made later is granted to others by default",
                seen=some(defaults),
                expected="an organization's role on rows in its own schema, and nothing else",
                remedy="ALTER DEFAULT PRIVILEGES … REVOKE …;",
            )
        )
    (database,) = await site.catalog(_DATABASE)
    if database["owner"] != OWNER_ROLE:
        found.append(
            warning(
                "privileges.database-owner",
                "The database is not the owner's",
                seen=database["owner"],
                expected=OWNER_ROLE,
                remedy=f"ALTER DATABASE … OWNER TO {OWNER_ROLE};",
            )
        )
    return found or [ok("privileges.as-designed", "Privileges are as designed, and nothing more")]


async def check_hardening(site: Site) -> list[Finding]:
    async with site.database.transaction(site.catalog_scope) as transaction:
        report = await hardening_report(transaction.connection)
    left = {
        "set_config()": report.set_config_revoked,
        "plpgsql blocks": report.plpgsql_revoked,
        "temporary tables": report.temporary_revoked,
        "session locks": report.session_locks_revoked,
        "large objects": report.large_objects_revoked,
    }
    opened = [name for name, closed in left.items() if not closed]
    if not opened:
        return [ok("hardening.complete", "What injected SQL could leave its organization with is closed")]
    return [
        warning(
            "hardening.open",
            "SQL that is injected into an expression could cross organizations, or leave something behind",
            seen=f"open: {', '.join(opened)}",
            expected="closed, where there is a superuser",
            remedy="Run `tenantry harden` as a superuser. On a managed server without one, know it: docs/security.md.",
        )
    ]
