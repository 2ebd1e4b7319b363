"""What a tenant's schema consists of, read from the catalog: to be compared, line by line, with what it should be.

A line is `<what it is>: <how it is>`, and a schema is its sorted lines. Names of the schema itself are left out and its
role is `<tenant>`, so that two tenants at one revision have the same lines; the order of columns is left out too, since
a column that was added by a rollout is the last one where it is the third in a tenant that is made today.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import asyncpg

__all__ = ("Difference", "describe_schema", "describe_schemas", "differences", "fingerprint")

# One statement for as many schemas as are asked for. What is in a schema is found through pg_depend, whose index leads
# from the namespace to its objects: pg_class has none by namespace, and reading all of it takes 8 ms at 1,000 tenants
# and ten times that at 10,000. A NULL ACL means the owner's default rights (acldefault), which is how it is written.
_DESCRIBE = """
WITH space AS MATERIALIZED (
    SELECT n.oid, n.nspname AS name, n.nspowner AS owner, n.nspacl AS acl
      FROM pg_namespace n WHERE n.nspname = ANY($1::text[])
), held AS MATERIALIZED (
    SELECT s.name AS space, d.classid, d.objid
      FROM space s JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = s.oid
     WHERE d.objsubid = 0
), relation AS MATERIALIZED (
    SELECT h.space, c.oid, quote_ident(c.relname) AS name, c.relkind AS kind, c.relowner AS owner, c.relacl AS acl,
           c.relpersistence, c.relrowsecurity, c.relforcerowsecurity, c.reloptions,
           CASE c.relkind WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
                WHEN 'f' THEN 'foreign table' WHEN 'c' THEN 'composite type' ELSE 'table' END AS noun
      FROM held h JOIN pg_class c ON h.classid = 'pg_class'::regclass AND c.oid = h.objid
     WHERE c.relkind NOT IN ('i', 'I')
), routine AS MATERIALIZED (
    SELECT h.space, p.oid, quote_ident(p.proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')' AS name,
           p.proowner AS owner, p.proacl AS acl, p.prokind AS kind
      FROM held h JOIN pg_proc p ON h.classid = 'pg_proc'::regclass AND p.oid = h.objid
), granted AS (
    SELECT name AS space, 'the schema' AS what, coalesce(acl, acldefault('n', owner)) AS acl FROM space
    UNION ALL
    SELECT space, noun || ' ' || name,
           coalesce(acl, acldefault(CASE kind WHEN 'S' THEN 's'::"char" ELSE 'r'::"char" END, owner)) FROM relation
    UNION ALL
    SELECT space, 'function ' || name, coalesce(acl, acldefault('f', owner)) FROM routine
    UNION ALL
    SELECT r.space, 'column ' || r.name || '.' || quote_ident(a.attname), a.attacl
      FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid WHERE a.attacl IS NOT NULL
    UNION ALL
    SELECT h.space,
           CASE d.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions'
                WHEN 'T' THEN 'types' ELSE d.defaclobjtype::text END
           || ' that ' || pg_get_userbyid(d.defaclrole) || ' will make', d.defaclacl
      FROM held h JOIN pg_default_acl d ON h.classid = 'pg_default_acl'::regclass AND d.oid = h.objid
)
SELECT name AS space, 'schema', 'owner ' || pg_get_userbyid(owner) FROM space
UNION ALL
SELECT s.name, 'role ' || s.name,
       concat_ws(' ', CASE WHEN r.rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END,
                 CASE WHEN r.rolinherit THEN 'INHERIT' ELSE 'NOINHERIT' END,
                 CASE WHEN r.rolsuper THEN 'SUPERUSER' END, CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END,
                 CASE WHEN r.rolcreatedb THEN 'CREATEDB' END, CASE WHEN r.rolreplication THEN 'REPLICATION' END,
                 CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END, array_to_string(r.rolconfig, ', '))
  FROM space s JOIN pg_roles r ON r.rolname = s.name
UNION ALL
SELECT s.name, 'membership of ' || m.name || ' in ' || m.role,
       concat_ws(' ', 'INHERIT ' || m.inherit_option, 'SET ' || m.set_option, 'ADMIN ' || m.admin_option)
  FROM space s JOIN pg_roles r ON r.rolname = s.name,
       LATERAL (SELECT r.rolname AS name, pg_get_userbyid(roleid) AS role, inherit_option, set_option, admin_option
                  FROM pg_auth_members WHERE member = r.oid
                UNION ALL
                SELECT pg_get_userbyid(member), r.rolname, inherit_option, set_option, admin_option
                  FROM pg_auth_members WHERE roleid = r.oid) m
UNION ALL
SELECT space, noun || ' ' || name,
       concat_ws(', ', 'owner ' || pg_get_userbyid(owner),
                 CASE relpersistence WHEN 'u' THEN 'unlogged' WHEN 't' THEN 'temporary' END,
                 CASE WHEN relrowsecurity THEN 'row security enabled' END,
                 CASE WHEN relforcerowsecurity THEN 'row security forced' END,
                 CASE WHEN kind = 'p' THEN 'partitioned' END,
                 array_to_string(reloptions, ', '),
                 CASE WHEN kind IN ('v', 'm') THEN pg_get_viewdef(oid) END)
  FROM relation
UNION ALL
SELECT r.space, 'column ' || r.name || '.' || quote_ident(a.attname),
       concat_ws(' ', format_type(a.atttypid, a.atttypmod),
                 CASE WHEN a.attcollation <> t.typcollation THEN 'COLLATE ' || a.attcollation::regcollation END,
                 CASE WHEN a.attnotnull THEN 'NOT NULL' END,
                 CASE a.attidentity WHEN 'a' THEN 'GENERATED ALWAYS AS IDENTITY'
                      WHEN 'd' THEN 'GENERATED BY DEFAULT AS IDENTITY' END,
                 CASE WHEN d.oid IS NULL THEN NULL
                      WHEN a.attgenerated = '' THEN 'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid)
                      ELSE 'GENERATED ALWAYS AS (' || pg_get_expr(d.adbin, d.adrelid) || ')'
                           || CASE a.attgenerated WHEN 's' THEN ' STORED' ELSE ' VIRTUAL' END END)
  FROM relation r
  JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE r.kind <> 'S'
UNION ALL
-- From PostgreSQL 18 on NOT NULL is a constraint as well, under a name that nobody chose: the column says it.
SELECT r.space, 'constraint ' || quote_ident(c.conname) || ' on ' || r.name, pg_get_constraintdef(c.oid)
  FROM relation r JOIN pg_constraint c ON c.conrelid = r.oid
 WHERE c.contype <> 'n' OR NOT c.convalidated
UNION ALL
-- The index of a constraint is part of that.
SELECT r.space, 'index ' || quote_ident(i.relname) || ' on ' || r.name,
       concat_ws(' ', pg_get_indexdef(x.indexrelid), CASE WHEN NOT x.indisvalid THEN '(invalid)' END,
                 CASE WHEN x.indisreplident THEN '(replica identity)' END)
  FROM relation r JOIN pg_index x ON x.indrelid = r.oid JOIN pg_class i ON i.oid = x.indexrelid
 WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = x.indexrelid
                      AND d.refclassid = 'pg_constraint'::regclass AND d.deptype = 'i')
UNION ALL
SELECT r.space, 'trigger ' || quote_ident(t.tgname) || ' on ' || r.name,
       pg_get_triggerdef(t.oid) || CASE t.tgenabled WHEN 'O' THEN '' WHEN 'D' THEN ' (disabled)'
                                        ELSE ' (enabled for ' || t.tgenabled::text || ')' END
  FROM relation r JOIN pg_trigger t ON t.tgrelid = r.oid AND NOT t.tgisinternal
UNION ALL
SELECT r.space, 'rule ' || quote_ident(w.rulename) || ' on ' || r.name, pg_get_ruledef(w.oid)
  FROM relation r JOIN pg_rewrite w ON w.ev_class = r.oid AND w.rulename <> '_RETURN'
UNION ALL
SELECT r.space, 'policy ' || quote_ident(p.polname) || ' on ' || r.name,
       concat_ws(' ', CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END, p.polcmd::text,
                 'TO ' || (SELECT string_agg(CASE o WHEN 0 THEN 'public' ELSE pg_get_userbyid(o)::text END, ', '
                                             ORDER BY o) FROM unnest(p.polroles) o),
                 'USING ' || pg_get_expr(p.polqual, p.polrelid), 'CHECK ' || pg_get_expr(p.polwithcheck, p.polrelid))
  FROM relation r JOIN pg_policy p ON p.polrelid = r.oid
UNION ALL
SELECT r.space, 'numbers of sequence ' || r.name,
       format('%s from %s by %s, %s to %s, cache %s%s', format_type(q.seqtypid, NULL), q.seqstart, q.seqincrement,
              q.seqmin, q.seqmax, q.seqcache, CASE WHEN q.seqcycle THEN ', cycling' ELSE '' END)
  FROM relation r JOIN pg_sequence q ON q.seqrelid = r.oid
UNION ALL
SELECT space, 'function ' || name,
       'owner ' || pg_get_userbyid(owner) || ', '
       || CASE WHEN kind = 'a' THEN 'aggregate' ELSE pg_get_functiondef(oid) END
  FROM routine
UNION ALL
-- Whatever else there may be (types, operators, statistics, …): that it is there.
SELECT space, pg_describe_object(classid, objid, 0), 'there' FROM held
 WHERE classid NOT IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_default_acl'::regclass)
UNION ALL
SELECT g.space, 'privileges of ' || CASE e.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(e.grantee)::text END
                || ' on ' || g.what,
       string_agg(e.privilege_type || CASE WHEN e.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END, ', '
                  ORDER BY e.privilege_type)
  FROM granted g, aclexplode(g.acl) e
 GROUP BY 1, 2
"""

# Every part of it is a few look-ups by index. Left to itself, the planner weighs merge joins too, for which it looks up
# the ends of the catalog's indexes: where many tenants were just dropped and nothing was vacuumed yet, that takes 10 ms
# and more, against 1. One plan for all, since planning still takes as long as running.
_BEFORE = """
SET LOCAL search_path TO pg_catalog; SET LOCAL plan_cache_mode TO force_generic_plan; SET LOCAL jit TO off;
SET LOCAL enable_hashjoin TO off; SET LOCAL enable_mergejoin TO off
"""
_AFTER = """
SET LOCAL plan_cache_mode TO DEFAULT; SET LOCAL jit TO DEFAULT;
SET LOCAL enable_hashjoin TO DEFAULT; SET LOCAL enable_mergejoin TO DEFAULT
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it should be."""

    subject: str
    """What it is: `column team.name`."""
    expected: str | None
    """None where it should not be there."""
    found: str | None
    """None where it is not there."""

    def __str__(self) -> str:
        if self.found is None:
            return f"{self.subject}: missing, expected {self.expected}"
        if self.expected is None:
            return f"{self.subject}: unexpected, found {self.found}"
        return f"{self.subject}: expected {self.expected}, found {self.found}"


async def describe_schemas(
    connection: asyncpg.Connection[Any], schemas: Sequence[str]
) -> Mapping[str, tuple[str, ...]]:
    """What each of several schemas consists of, by its name; empty where there is no such schema.

    To be called inside a transaction, whose search_path it leaves on `pg_catalog`: what PostgreSQL writes of an
    expression depends on it.

    Raises:
        asyncpg.PostgresError: whatever the server says.
    """
    await connection.execute(_BEFORE)
    rows = await connection.fetch(_DESCRIBE, list(schemas))
    await connection.execute(_AFTER)
    lines: dict[str, list[str]] = defaultdict(list)
    for space, subject, text in rows:
        lines[space].append(_anonymous(f"{subject}: {text}", space))
    return {name: tuple(sorted(lines[name])) for name in schemas}


async def describe_schema(connection: asyncpg.Connection[Any], schema: str) -> tuple[str, ...]:
    """What one schema consists of; as `describe_schemas`."""
    return (await describe_schemas(connection, [schema]))[schema]


def _anonymous(line: str, schema: str) -> str:
    line = line.replace(f"{schema}.", "").replace(schema, "<tenant>")
    # One line, also where it is a function's source.
    return line.replace("\\", "\\\\").replace("\n", "\\n") if "\n" in line else line


def fingerprint(lines: Iterable[str]) -> str:
    """SHA-256 of a schema's lines, 64 hexadecimal digits."""
    return sha256("\n".join(sorted(lines)).encode()).hexdigest()


def differences(expected: Iterable[str], found: Iterable[str]) -> list[Difference]:
    """What is missing, what is too much and what is otherwise, sorted by what it is; empty if nothing is."""
    wanted, there = _by_subject(expected), _by_subject(found)
    if wanted and not there:
        return [Difference("schema", wanted.get("schema", "one"), None)]
    return [
        Difference(subject, wanted.get(subject), there.get(subject))
        for subject in sorted(wanted.keys() | there.keys())
        if wanted.get(subject) != there.get(subject)
    ]


def _by_subject(lines: Iterable[str]) -> dict[str, str]:
    found: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        subject, _, text = line.partition(": ")
        found[subject].append(text)
    # Several where the catalog has several: a membership that two roles have granted, say.
    return {subject: "; ".join(sorted(texts)) for subject, texts in found.items()}
