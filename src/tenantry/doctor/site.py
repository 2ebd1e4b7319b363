"""A deployment as the checks reach it: by the addresses that there are, reading, and never for long."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg
from redis.asyncio import Redis

from tenantry.kernel.home import read_addresses, read_owner_addresses
from tenantry.kernel.settings.addresses import is_loopback
from tenantry.tenancy.connection import DriverConnection
from tenantry.tenancy.context import ScopeTimes, control_scope
from tenantry.tenancy.database import Database, owner_engine
from tenantry.tenancy.models import schema_name
from tenantry.tenancy.scope import Scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine

    from tenantry.kernel.settings import Settings

__all__ = ("AT_ONCE", "Need", "Options", "Site", "gather")

AT_ONCE = 3
"""Checks that run at a time: a doctor who takes a deployment's last connections is the illness."""

_STATEMENT = 60_000
"""Milliseconds: the catalog of ten thousand tenants takes seconds to read where it is not in memory."""
_TIMES = ScopeTimes(statement=_STATEMENT, lock=2000, idle_in_transaction=60_000)
# The catalog alone, as the application logs in: no role, no path, and no writing.
_CATALOG = Scope(
    role="",
    search_path="",
    read_only=True,
    statement_timeout=_TIMES.statement,
    lock_timeout=_TIMES.lock,
    idle_in_transaction_timeout=_TIMES.idle_in_transaction,
)


class Need(enum.StrEnum):
    """What a check cannot do without."""

    APP = "app"
    OWNER = "owner"
    ADMIN = "admin"
    REDIS = "redis"

    @property
    def address(self) -> str:
        """What would have to be given."""
        return {
            Need.APP: "TENANTRY_DATABASE_URL",
            Need.OWNER: "TENANTRY_DATABASE_OWNER_URL",
            Need.ADMIN: "a superuser's address (--admin-url-stdin)",
            Need.REDIS: "TENANTRY_REDIS_URL",
        }[self]


@dataclass(frozen=True, slots=True)
class Options:
    """How thoroughly to look, and what nobody but the operator knows."""

    sample: int | None = 20
    """Tenants whose schemas are compared; None for all of them."""
    memory: int | None = None
    """Bytes of memory of PostgreSQL's machine; None: as `shared_buffers` lets guess."""
    api_replicas: int = 1
    """`tenantry serve` that run."""
    worker_replicas: int = 1
    """`tenantry worker` that run."""
    known_logins: Callable[[], Awaitable[list[str]]] | None = None
    """Asks for the accounts whose passwords are in the sources."""


@dataclass
class Site:
    """Settings, completed from the home folder as far as it goes, and connections that are opened when needed."""

    settings: Settings
    urls: dict[Need, str]
    options: Options = field(default_factory=Options)
    embedded: bool = False
    """Whether PostgreSQL is the one that `tenantry up` runs."""
    _database: Database | None = None
    _owner: AsyncEngine | None = None
    _redis: Redis | None = None

    @property
    def development(self) -> bool:
        """Whether this is somebody's own machine: embedded servers, and an API that nobody else can reach."""
        return self.embedded and is_loopback(self.settings.host)

    @property
    def database(self) -> Database:
        """The application's address."""
        if self._database is None:
            self._database = Database(
                self.urls[Need.APP],
                pool_size=AT_ONCE,
                max_overflow=0,
                # They take turns, and one may take all the time that a statement has.
                pool_timeout=60,
                connect_timeout=self.settings.database_connect_timeout,
                prepared_statements=self.settings.database_prepared_statements,
                application_name="tenantry-doctor",
            )
        return self._database

    @property
    def owner(self) -> AsyncEngine:
        if self._owner is None:
            self._owner = owner_engine(self.urls[Need.OWNER], pool_size=AT_ONCE)
        return self._owner

    @property
    def redis(self) -> Redis:
        """With time enough: how long Redis takes is one of the questions."""
        if self._redis is None:
            self._redis = Redis.from_url(
                self.urls[Need.REDIS], socket_timeout=5, socket_connect_timeout=5, client_name="tenantry-doctor"
            )
        return self._redis

    @property
    def catalog_scope(self) -> Scope:
        """The catalog alone, as the application logs in."""
        return _CATALOG

    async def catalog(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """Rows of PostgreSQL's catalog, which everybody may read."""
        async with self.database.transaction(_CATALOG) as transaction:
            # Of many schemas, everything looks expensive to the planner, which would compile each query for longer than
            # it runs.
            await transaction.connection.fetch("SET LOCAL jit TO off")
            return await transaction.connection.fetch(query, *arguments)

    async def control(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """Rows of the control plane's tables."""
        async with self.database.transaction(control_scope(_TIMES, read_only=True)) as transaction:
            return await transaction.connection.fetch(query, *arguments)

    async def tenant(self, tenant_id: UUID, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """Rows of one tenant's tables."""
        name = schema_name(tenant_id)
        scope = Scope(role=name, search_path=name, read_only=True, statement_timeout=5000, lock_timeout=_TIMES.lock)
        async with self.database.transaction(scope) as transaction:
            return await transaction.connection.fetch(query, *arguments)

    @asynccontextmanager
    async def connect(self, need: Need) -> AsyncIterator[DriverConnection]:
        """A connection of its own, past every pool of ours."""
        connection = await asyncpg.connect(
            self.urls[need],
            connection_class=DriverConnection,
            timeout=self.settings.database_connect_timeout,
            # Also where a pooler is in between that knows no prepared statements.
            statement_cache_size=0,
        )
        try:
            yield connection
        finally:
            await connection.close(timeout=5)

    async def close(self) -> None:
        if self._database is not None:
            await self._database.close()
        if self._owner is not None:
            await self._owner.dispose()
        if self._redis is not None:
            await self._redis.aclose()


def gather(settings: Settings, options: Options, *, admin_url: str | None = None) -> Site:
    """The site of these settings; what they leave out is taken from the home folder, and may be nowhere.

    Raises:
        SettingsError: a file of the home folder cannot be read.
    """
    known, update, urls = read_addresses(settings.home), dict[str, object](), dict[Need, str]()
    embedded = False
    owner = settings.database_owner_url
    if owner is not None:
        urls[Need.OWNER] = owner.get_secret_value()
    if known is not None:
        update["redis_url"] = settings.redis_url or known.redis_url
        if known.replaces(settings.database_url):
            update["database_url"] = known.database_url
            owners = read_owner_addresses(settings.home)
            if owners is not None:
                urls.setdefault(Need.OWNER, owners.database_owner_url)
                embedded = owners.superuser_url is not None
                if owners.superuser_url is not None:
                    urls[Need.ADMIN] = owners.superuser_url
    settings = settings.model_copy(update=update)
    if settings.database_url is not None:
        urls[Need.APP] = settings.database_url
    if settings.redis_url is not None:
        urls[Need.REDIS] = settings.redis_url
    if admin_url is not None:
        urls[Need.ADMIN] = admin_url
    return Site(settings=settings, urls=urls, options=options, embedded=embedded)


def host_of(url: str) -> str:
    """The host of an address; empty for a socket."""
    return urlsplit(url).hostname or ""
