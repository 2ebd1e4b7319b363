"""The roles and the database, made once by whoever may: an administrator, a superuser or a managed server's user.

tenantry_owner    owns the database and every schema; makes tenants' roles; no superuser
tenantry_app      what the serving processes log in as: it inherits nothing and may read nothing, but may become
tenantry_control  the control plane, or
t_<id>            one tenant; all of these are members of
tenantry_tenant   the one role that holds what every tenant may do in the shared schema
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from tenantry.tenancy.scope import CONTROL_ROLE

__all__ = (
    "APP_ROLE",
    "OWNER_ROLE",
    "TENANT_GROUP_ROLE",
    "Addresses",
    "HardeningReport",
    "bootstrap",
    "harden",
    "hardening_report",
    "with_credentials",
)

OWNER_ROLE = "tenantry_owner"
APP_ROLE = "tenantry_app"
TENANT_GROUP_ROLE = "tenantry_tenant"

_DATABASE = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_PASSWORD = re.compile(r"[A-Za-z0-9_-]{16,128}")

_SESSION_LOCKS = tuple(
    f"pg_{verb}advisory_lock{kind}({arguments})"
    for verb in ("", "try_")
    for kind in ("", "_shared")
    for arguments in ("bigint", "integer, integer")
)
_LARGE_OBJECTS = ("lo_creat(integer)", "lo_create(oid)", "lo_from_bytea(oid, bytea)")

# Making a role or granting it fails when another process did so a moment ago: both errors mean "it is there".
_ROLES = f"""
DO $bootstrap$
DECLARE wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['{OWNER_ROLE}', '{APP_ROLE}', '{CONTROL_ROLE}', '{TENANT_GROUP_ROLE}'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', wanted);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
            END;
        END IF;
    END LOOP;
END
$bootstrap$;
"""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the two kinds of process log in."""

    owner_url: str
    app_url: str


@dataclass(frozen=True, slots=True)
class HardeningReport:
    """What `harden` found afterwards, read back from the catalog: REVOKE by a mere owner only warns."""

    set_config_revoked: bool
    plpgsql_revoked: bool
    temporary_revoked: bool
    session_locks_revoked: bool
    large_objects_revoked: bool

    @property
    def complete(self) -> bool:
        return (
            self.set_config_revoked
            and self.plpgsql_revoked
            and self.temporary_revoked
            and self.session_locks_revoked
            and self.large_objects_revoked
        )


def with_credentials(url: str, *, user: str, password: str, database: str | None = None) -> str:
    """The same server's address for another user, and database."""
    parts = urlsplit(url)
    netloc = f"{quote(user, safe='')}:{quote(password, safe='')}@{parts.netloc.rpartition('@')[2]}"
    path = f"/{database}" if database is not None else parts.path
    return urlunsplit((parts.scheme, netloc, path, parts.query, ""))


def _database_url(url: str, database: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, f"/{database}", parts.query, ""))


async def bootstrap(admin_url: str, *, database: str, owner_password: str, app_password: str) -> Addresses:
    """Make the roles and the database, or bring them to the wanted state; repeatable.

    Args:
        admin_url: the address of a superuser, or of a user with CREATEROLE and CREATEDB.
        database: the database to make, a plain lower-case identifier.
        owner_password: of `tenantry_owner`; 16 to 128 characters of A-Z, a-z, 0-9, `_` and `-`.
        app_password: of `tenantry_app`; likewise.

    Raises:
        ValueError: the name or a password has another form.
        asyncpg.InsufficientPrivilegeError: the administrator may not do this.
    """
    if not _DATABASE.fullmatch(database):
        raise ValueError(f"not a plain database name: {database!r}")
    for password in (owner_password, app_password):
        if not _PASSWORD.fullmatch(password):
            raise ValueError("passwords of the roles are 16 to 128 characters of A-Z, a-z, 0-9, '_' and '-'")
    admin = await asyncpg.connect(admin_url)
    try:
        await admin.execute(_ROLES)
        async with admin.transaction():
            # Two bootstraps at once would meet in the same catalog rows ("tuple concurrently updated").
            await admin.execute("SELECT pg_advisory_xact_lock(2118803181)")
            await admin.execute(
                f"ALTER ROLE {OWNER_ROLE} LOGIN CREATEROLE INHERIT PASSWORD '{owner_password}';"
                f"ALTER ROLE {APP_ROLE} LOGIN NOINHERIT PASSWORD '{app_password}';"
                f"ALTER ROLE {APP_ROLE} SET search_path = '';"
                f"GRANT {CONTROL_ROLE} TO {APP_ROLE} WITH INHERIT FALSE, SET TRUE;"
                # To grant it to each tenant's role, not to be it.
                f"GRANT {TENANT_GROUP_ROLE} TO {OWNER_ROLE} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE"
            )
        if not await admin.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", database):
            superuser = await admin.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
            if not superuser:
                # CREATE DATABASE … OWNER needs the right to become the owner.
                await admin.execute(f"GRANT {OWNER_ROLE} TO current_user WITH SET TRUE, INHERIT TRUE")
            await admin.execute(f'CREATE DATABASE "{database}" OWNER {OWNER_ROLE}')
    finally:
        await admin.close()
    inside = await asyncpg.connect(_database_url(admin_url, database))
    try:
        await inside.execute(
            f'REVOKE ALL ON DATABASE "{database}" FROM PUBLIC; GRANT CONNECT ON DATABASE "{database}" TO {APP_ROLE};'
            "REVOKE ALL ON SCHEMA public FROM PUBLIC"
        )
    finally:
        await inside.close()
    return Addresses(
        owner_url=with_credentials(admin_url, user=OWNER_ROLE, password=owner_password, database=database),
        app_url=with_credentials(admin_url, user=APP_ROLE, password=app_password, database=database),
    )


async def harden(superuser_url: str) -> HardeningReport:
    """Take from PUBLIC what injected SQL could leave its tenant's role with, or leave something behind.

    `set_config('role', …)` changes the role inside a SELECT; an anonymous plpgsql block can do so step by step;
    temporary objects could shadow names; an advisory lock of the session outlives its transaction on the pooled
    connection; a large object belongs to no schema, and would keep its owner's role from being dropped.

    The address must lead to the application's database; a server whose administrator is no superuser leaves some of it
    undone, which the report says.
    """
    connection = await asyncpg.connect(superuser_url)
    try:
        database = await connection.fetchval("SELECT current_database()")
        for statement in (
            "REVOKE EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) FROM PUBLIC",
            "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC",
            f'REVOKE TEMPORARY ON DATABASE "{database}" FROM PUBLIC',
            *(f"REVOKE EXECUTE ON FUNCTION pg_catalog.{name} FROM PUBLIC" for name in _SESSION_LOCKS + _LARGE_OBJECTS),
            # The owner's migrations define triggers.
            f"GRANT USAGE ON LANGUAGE plpgsql TO {OWNER_ROLE}",
        ):
            try:
                await connection.execute(statement)
            except asyncpg.InsufficientPrivilegeError:
                continue
        return await hardening_report(connection)
    finally:
        await connection.close()


async def hardening_report(connection: asyncpg.Connection[asyncpg.Record]) -> HardeningReport:
    """What a role without any grant of its own may do, read from the catalog of the connection's database."""
    record = await connection.fetchrow(
        """
        SELECT NOT has_function_privilege($1, 'pg_catalog.set_config(text, text, boolean)', 'EXECUTE')
                   AS set_config_revoked,
               NOT has_language_privilege($1, 'plpgsql', 'USAGE') AS plpgsql_revoked,
               NOT has_database_privilege($1, current_database(), 'TEMPORARY') AS temporary_revoked,
               NOT EXISTS (SELECT FROM unnest($2::text[]) name WHERE has_function_privilege($1, name, 'EXECUTE'))
                   AS session_locks_revoked,
               NOT EXISTS (SELECT FROM unnest($3::text[]) name WHERE has_function_privilege($1, name, 'EXECUTE'))
                   AS large_objects_revoked
        """,
        TENANT_GROUP_ROLE,
        [f"pg_catalog.{name}" for name in _SESSION_LOCKS],
        [f"pg_catalog.{name}" for name in _LARGE_OBJECTS],
    )
    assert record is not None  # noqa: S101 - a SELECT without FROM answers one row
    return HardeningReport(**record)
