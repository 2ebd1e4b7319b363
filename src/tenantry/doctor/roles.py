"""Roles and who may become whom: as `tenantry bootstrap` and the provisioner make them, and nothing more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenantry.doctor.findings import Finding, critical, note, ok, some, warning
from tenantry.tenancy.bootstrap import APP_ROLE, OWNER_ROLE, TENANT_GROUP_ROLE
from tenantry.tenancy.scope import CONTROL_ROLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    from tenantry.doctor.site import Site

__all__ = ("check_roles",)

_OURS = [OWNER_ROLE, APP_ROLE, CONTROL_ROLE, TENANT_GROUP_ROLE]
_RIGHTS = {
    "rolsuper": "SUPERUSER",
    "rolcreaterole": "CREATEROLE",
    "rolcreatedb": "CREATEDB",
    "rolreplication": "REPLICATION",
    "rolbypassrls": "BYPASSRLS",
    "rolcanlogin": "LOGIN",
}
_EXPECTED: dict[str, frozenset[str]] = {
    OWNER_ROLE: frozenset({"CREATEROLE", "LOGIN"}),
    APP_ROLE: frozenset({"LOGIN"}),
    CONTROL_ROLE: frozenset(),
    TENANT_GROUP_ROLE: frozenset(),
}

_ROLES = "SELECT * FROM pg_roles WHERE rolname = ANY($1::text[])"
# Roles are the cluster's: those of another deployment's tenants are looked at as well, being as dangerous.
_TENANTS = """
SELECT rolname::text AS name FROM pg_roles
 WHERE rolname ~ '^t_[0-9a-f]{32}$'
   AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls OR rolcanlogin OR NOT rolinherit
        OR rolconfig IS NOT NULL)
 ORDER BY 1 LIMIT 100
"""
_MEMBERSHIPS = """
WITH role AS MATERIALIZED (
    SELECT oid, rolname::text AS name, rolsuper, rolcreaterole, rolname ~ '^t_[0-9a-f]{32}$' AS is_tenant,
           CASE WHEN rolname ~ '^t_[0-9a-f]{32}$' THEN 'tenant' ELSE rolname::text END AS kind
      FROM pg_roles
)
SELECT g.name AS role, m.name AS member, a.admin_option AS admin, a.inherit_option AS inherit, a.set_option AS set,
       m.rolcreaterole AND m.name <> $2 AS administrator, m.is_tenant OR m.name = ANY($1::text[]) AS ours
  FROM pg_auth_members a JOIN role g ON g.oid = a.roleid JOIN role m ON m.oid = a.member
 WHERE (g.is_tenant OR m.is_tenant OR g.name = ANY($1::text[]) OR m.name = ANY($1::text[])) AND NOT m.rolsuper
   AND (g.kind, m.kind, a.admin_option, a.inherit_option, a.set_option) NOT IN (
       ($5::text, $3::text, false, false, true), ($4::text, $2::text, true, false, false),
       ('tenant', $2::text, true, false, false), ('tenant', $3::text, false, false, true),
       ($4::text, 'tenant', false, true, false))
 ORDER BY 1, 2 LIMIT 100
"""
_MISSING = """
SELECT n.nspname::text AS name FROM pg_namespace n LEFT JOIN pg_roles r ON r.rolname = n.nspname
 WHERE n.nspname ~ '^t_[0-9a-f]{32}$'
   AND (r.oid IS NULL
        OR NOT EXISTS (SELECT FROM pg_auth_members a JOIN pg_roles g ON g.oid = a.roleid
                        WHERE a.member = r.oid AND g.rolname = $1 AND a.inherit_option)
        OR NOT EXISTS (SELECT FROM pg_auth_members a JOIN pg_roles m ON m.oid = a.member
                        WHERE a.roleid = r.oid AND m.rolname = $2 AND a.set_option))
 ORDER BY 1 LIMIT 100
"""
_LOGIN = "SELECT session_user::text AS name, rolsuper FROM pg_roles WHERE rolname = session_user"


async def check_roles(site: Site) -> list[Finding]:
    (login,) = await site.catalog(_LOGIN)
    roles = {row["rolname"]: row for row in await site.catalog(_ROLES, _OURS)}
    found = _judge_login(login)
    for name in _OURS:
        found += _judge_role(name, roles.get(name))
    if loud := [row["name"] for row in await site.catalog(_TENANTS)]:
        found.append(
            critical(
                "roles.tenant-attributes",
                "Roles of organizations may do more than be taken on",
                seen=some(loud),
                expected="NOLOGIN INHERIT and nothing else, without settings",
                remedy='ALTER ROLE "t_…" NOLOGIN INHERIT NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION '
                'NOBYPASSRLS; ALTER ROLE "t_…" RESET ALL. `tenantry tenants verify --all` names the rest.',
            )
        )
    found += _judge_memberships(
        await site.catalog(_MEMBERSHIPS, _OURS, OWNER_ROLE, APP_ROLE, TENANT_GROUP_ROLE, CONTROL_ROLE)
    )
    if missing := [row["name"] for row in await site.catalog(_MISSING, TENANT_GROUP_ROLE, APP_ROLE)]:
        found.append(
            critical(
                "roles.not-granted",
                "Schemas of organizations that the application cannot enter",
                seen=some(missing),
                expected=f"the role is there, a member of {TENANT_GROUP_ROLE}, and {APP_ROLE} may SET it",
                remedy=f'As {OWNER_ROLE}: GRANT "t_…" TO {APP_ROLE} WITH INHERIT FALSE, SET TRUE; '
                f'GRANT {TENANT_GROUP_ROLE} TO "t_…" WITH INHERIT TRUE, SET FALSE.',
            )
        )
    return found or [ok("roles.as-designed", "Roles and memberships are as designed, and nothing more")]


def _judge_login(login: asyncpg.Record) -> list[Finding]:
    if login["name"] == APP_ROLE:
        return []
    return [
        critical(
            "roles.login",
            "The serving processes log in as another role than the application's",
            seen=login["name"] + (", a superuser" if login["rolsuper"] else ""),
            expected=APP_ROLE,
            remedy=f"Have TENANTRY_DATABASE_URL log in as {APP_ROLE}; `tenantry bootstrap` prints its address.",
        )
    ]


def _judge_role(name: str, role: Any) -> list[Finding]:
    if role is None:
        return [
            critical(
                "roles.missing",
                f"There is no role {name}",
                seen=None,
                expected="four roles of ours",
                remedy="Run `tenantry bootstrap`.",
            )
        ]
    found = []
    has = {word for column, word in _RIGHTS.items() if role[column]}
    if excess := sorted(has - _EXPECTED[name]):
        found.append(
            critical(
                "roles.attributes",
                f"{name} may do more than it is for",
                seen=", ".join(excess),
                expected=", ".join(sorted(_EXPECTED[name])) or "nothing",
                remedy=f"As an administrator: ALTER ROLE {name} {' '.join(f'NO{word}' for word in excess)};",
            )
        )
    if lacking := sorted(_EXPECTED[name] - has):
        found.append(
            critical(
                "roles.attributes",
                f"{name} lacks what it needs",
                seen="no " + ", ".join(lacking),
                expected=", ".join(sorted(_EXPECTED[name])),
                remedy=f"As an administrator: ALTER ROLE {name} {' '.join(lacking)};",
            )
        )
    if name == APP_ROLE and role["rolinherit"]:
        found.append(
            critical(
                "roles.inherit",
                f"{APP_ROLE} inherits what it is granted",
                seen="INHERIT",
                expected="NOINHERIT",
                remedy=f"ALTER ROLE {APP_ROLE} NOINHERIT;",
            )
        )
    settings = [
        item for item in role["rolconfig"] or () if name != APP_ROLE or item not in {"search_path=", 'search_path=""'}
    ]
    if settings and name != OWNER_ROLE:
        found.append(
            warning(
                "roles.settings",
                f"{name} has settings of its own, which every session of it begins with",
                seen=some(settings),
                expected="search_path = '' for the application, and none for the others",
                remedy=f"As an administrator: ALTER ROLE {name} RESET …;",
            )
        )
    if name == APP_ROLE and not role["rolconfig"]:
        found.append(
            warning(
                "roles.search-path",
                f"{APP_ROLE} begins with the server's search_path",
                seen="none of its own",
                expected="search_path = ''",
                remedy=f"ALTER ROLE {APP_ROLE} SET search_path = '';",
            )
        )
    return found


def _judge_memberships(rows: Sequence[asyncpg.Record]) -> list[Finding]:
    ours = [_membership(row) for row in rows if row["ours"]]
    administrators = [_membership(row) for row in rows if not row["ours"] and row["administrator"]]
    strangers = [_membership(row) for row in rows if not row["ours"] and not row["administrator"]]
    found = []
    if ours:
        found.append(
            critical(
                "roles.memberships",
                "Roles of ours are members otherwise than they should be",
                seen=some(ours),
                expected=f"{APP_ROLE} may SET {CONTROL_ROLE} and organizations' roles, without INHERIT or ADMIN; "
                f"{OWNER_ROLE} has ADMIN of them alone; organizations' roles INHERIT {TENANT_GROUP_ROLE} alone",
                remedy="REVOKE what is too much; GRANT … WITH INHERIT FALSE, SET TRUE what is for the application.",
            )
        )
    if strangers:
        found.append(
            critical(
                "roles.strangers",
                "Others may take on roles of ours, and so read organizations' data",
                seen=some(strangers),
                expected=f"nobody besides {APP_ROLE}, {OWNER_ROLE} and administrators",
                remedy="REVOKE role FROM member;",
            )
        )
    if administrators:
        found.append(
            note(
                "roles.administrators",
                "Administrators without SUPERUSER may take on roles of ours, or give them away",
                seen=some(administrators),
                remedy="That is how managed servers are; know who has their passwords.",
            )
        )
    return found


def _membership(row: asyncpg.Record) -> str:
    options = [word for word, has in (("ADMIN", row["admin"]), ("INHERIT", row["inherit"]), ("SET", row["set"])) if has]
    return f"{row['member']} in {row['role']} ({', '.join(options) or 'nothing'})"
