"""A PostgreSQL server as its administrator meets it: who an address logs in as, and what is there already."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from tenantry.cli.problems import CommandError, ExitCode
from tenantry.kernel.settings import redact_url
from tenantry.tenancy.bootstrap import (
    APP_ROLE,
    OWNER_ROLE,
    Addresses,
    HardeningReport,
    bootstrap,
    hardening_report,
    with_credentials,
)
from tenantry.tenancy.connection import DriverConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = (
    "DATABASE",
    "Account",
    "Claims",
    "account_of",
    "claims",
    "connect",
    "logs_in",
    "make_database",
    "read_hardening",
    "role_url",
    "target_database",
    "with_database",
)

DATABASE = "tenantry"
_MAINTENANCE = "postgres"

_OBJECTS = """
SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
"""


@dataclass(frozen=True, slots=True)
class Account:
    """Whom an address logs in as."""

    role: str
    is_superuser: bool
    may_create_roles: bool

    @property
    def is_administrator(self) -> bool:
        return self.role not in {APP_ROLE, OWNER_ROLE} and (self.is_superuser or self.may_create_roles)


@dataclass(frozen=True, slots=True)
class Claims:
    """Who uses a server's roles of ours already."""

    roles_exist: bool
    databases: tuple[str, ...]
    """Other databases that `tenantry_owner` owns."""
    sessions: int
    """Sessions that are logged in as one of the roles."""


def with_database(url: str, database: str) -> str:
    """The same address, of another database."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, f"/{database}", parts.query, ""))


def target_database(url: str) -> str:
    """The database that an administrator's address means: not the maintenance database, which is nobody's."""
    named = urlsplit(url).path.strip("/")
    return DATABASE if named in {"", _MAINTENANCE} else named


@asynccontextmanager
async def connect(url: str, *, timeout: float = 5.0) -> AsyncIterator[asyncpg.Connection[Any]]:  # noqa: ASYNC109
    """A connection, to the maintenance database where the named one is not there yet.

    Raises:
        CommandError: the server is not there, or refuses.
    """
    try:
        try:
            connection = await _open(url, timeout)
        except asyncpg.InvalidCatalogNameError:
            connection = await _open(with_database(url, _MAINTENANCE), timeout)
    except (OSError, asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError) as error:
        reason = str(error) or "no answer in time"
        raise CommandError(f"PostgreSQL at {redact_url(url)}: {reason}", ExitCode.UNAVAILABLE) from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise CommandError(f"PostgreSQL at {redact_url(url)}: {error}", ExitCode.USAGE) from None
    try:
        yield connection
    finally:
        await connection.close(timeout=timeout)


async def _open(url: str, timeout: float) -> asyncpg.Connection[Any]:  # noqa: ASYNC109
    return await asyncpg.connect(
        url,
        connection_class=DriverConnection,
        timeout=timeout,
        server_settings={"application_name": "tenantry-cli"},
    )


async def account_of(url: str, *, timeout: float = 5.0) -> Account:  # noqa: ASYNC109
    """Whom the address logs in as.

    Raises:
        CommandError: the server is not there, or refuses.
    """
    async with connect(url, timeout=timeout) as connection:
        record = await connection.fetchrow(
            "SELECT rolname, rolsuper, rolcreaterole FROM pg_roles WHERE rolname = current_user"
        )
    assert record is not None  # noqa: S101 - everybody is somebody
    return Account(role=record["rolname"], is_superuser=record["rolsuper"], may_create_roles=record["rolcreaterole"])


async def logs_in(url: str) -> bool:
    """Whether an address with a password is good; a server that does not answer is an error all the same."""
    try:
        connection = await _open(url, 5.0)
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError):
        return False
    await connection.close(timeout=5.0)
    return True


async def claims(admin_url: str, database: str) -> Claims:
    """What else depends on the passwords of the roles, which are the whole server's and not one database's."""
    async with connect(admin_url) as connection:
        roles = await connection.fetchval(
            "SELECT count(*) FROM pg_roles WHERE rolname = $1 OR rolname = $2", OWNER_ROLE, APP_ROLE
        )
        databases = await connection.fetch(
            "SELECT datname FROM pg_database WHERE pg_get_userbyid(datdba) = $1 AND datname <> $2 ORDER BY 1",
            OWNER_ROLE,
            database,
        )
        sessions = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 OR usename = $2", OWNER_ROLE, APP_ROLE
        )
    return Claims(
        roles_exist=bool(roles), databases=tuple(record["datname"] for record in databases), sessions=sessions
    )


async def make_database(admin_url: str, database: str, *, owner_password: str, app_password: str) -> Addresses:
    """Make roles and database; an empty database that was made beforehand is handed to the owner.

    Raises:
        CommandError: the database is somebody else's and not empty, or the administrator may not do this.
    """
    async with connect(admin_url) as connection:
        owner = await connection.fetchval(
            "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = $1", database
        )
    foreign = owner is not None and owner != OWNER_ROLE
    if foreign:
        async with connect(with_database(admin_url, database)) as connection:
            if await connection.fetchval(_OBJECTS):
                raise CommandError(
                    f"the database {database!r} is {owner}'s and not empty; name one that is empty or not there yet",
                    ExitCode.CONFLICT,
                )
    try:
        addresses = await bootstrap(
            with_database(admin_url, database if owner is not None else _MAINTENANCE),
            database=database,
            owner_password=owner_password,
            app_password=app_password,
        )
        if foreign:
            async with connect(with_database(admin_url, database)) as connection:
                if not await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
                    # ALTER DATABASE … OWNER needs the right to become the new owner.
                    await connection.execute(f"GRANT {OWNER_ROLE} TO current_user WITH SET TRUE, INHERIT TRUE")
                await connection.execute(f'ALTER DATABASE "{database}" OWNER TO {OWNER_ROLE}')
    except ValueError as error:
        raise CommandError(str(error), ExitCode.USAGE) from None
    except asyncpg.InsufficientPrivilegeError as error:
        raise CommandError(
            f"PostgreSQL at {redact_url(admin_url)}: {error}. The role needs CREATEROLE and CREATEDB.", ExitCode.USAGE
        ) from None
    return addresses


async def read_hardening(url: str) -> HardeningReport:
    """What the database of that address grants to everybody."""
    async with connect(url) as connection:
        return await hardening_report(connection)


def role_url(admin_url: str, role: str, password: str, database: str) -> str:
    """The address of one of our roles on the administrator's server."""
    return with_credentials(admin_url, user=role, password=password, database=database)
