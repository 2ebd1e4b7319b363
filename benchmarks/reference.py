"""What the product is measured beside in `make bench`: itself without its tenancy, and the driver without the product.

Nothing here is a switch in the product: the variant without tenancy replaces its classes from outside.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import patch
from uuid import UUID

import asyncpg
import msgspec
from litestar import Litestar, Response, get
from litestar.params import FromPath

from benchmarks.deployment import SOLO
from tenantry import asgi
from tenantry.domain.identity.principal import _PRINCIPAL
from tenantry.domain.tags.schemas import TagBrief
from tenantry.domain.teams.queries import _TEAM
from tenantry.domain.teams.schemas import TeamRead
from tenantry.kernel.schema import Page
from tenantry.tenancy.connection import DriverConnection, ScopedConnection
from tenantry.tenancy.context import ScopeTimes, TenantContext
from tenantry.tenancy.database import Database
from tenantry.tenancy.models import schema_name
from tenantry.tenancy.plan import PlanLimits
from tenantry.tenancy.registry import TenantRegistry
from tenantry.tenancy.request import HostNames

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from litestar.types import ASGIApp, HTTPScope
    from sqlalchemy.ext.asyncio import AsyncEngine

    from tenantry.kernel.settings import Settings
    from tenantry.tenancy.scope import Scope

__all__ = ("create_raw", "create_untenanted")


class _PlainConnection(DriverConnection):
    """asyncpg's own BEGIN; the role and the path are those of the login."""

    # What the pool and a transaction ask of a connection: there is one tenant, and nothing is replaced or traced.
    met: frozenset[str] = frozenset((schema_name(SOLO),))
    retires_at = float("inf")
    most = 1 << 30
    ends_for: str | None = None
    is_idle = False
    span = None

    def arm(self, scope: Scope, label: str = "") -> None:
        """Nothing follows from a scope here."""

    @property
    def is_clean(self) -> bool:
        return not self.is_closed()


class _PlainDatabase(Database):
    """The product's pool and transactions, on connections that are nobody's in particular."""

    @staticmethod
    def _watch(engine: AsyncEngine) -> None:
        """No scope, hence nothing to look after."""


class _OneTenant(TenantRegistry):
    """Every token is good for the one schema; nothing is looked up, nothing polled."""

    _only = TenantContext.build(
        tenant_id=SOLO,
        slug="solo",
        name="Solo",
        status="active",
        plan=PlanLimits(slug="none"),
        times=ScopeTimes(),
    )

    async def start(self) -> None:
        self._fresh_at = float("inf")

    def by_id(self, tenant_id: UUID) -> TenantContext | None:
        return self._only

    def by_slug(self, slug: str) -> TenantContext | None:
        return None


class _NoHostNames(HostNames):
    def slug(self, scope: HTTPScope) -> str | None:
        return None


def create_untenanted(settings: Settings) -> ASGIApp:
    """The whole application with tenancy taken out: one schema, no scope, the same queries and authentication."""
    database = _PlainDatabase(
        os.environ["BENCH_SOLO_URL"],
        pool_size=settings.database_pool_size,
        pool_timeout=settings.database_pool_timeout,
        connect_timeout=settings.database_connect_timeout,
        prepared_statements=settings.database_prepared_statements,
        connection_class=cast("type[ScopedConnection]", _PlainConnection),
    )
    with patch.object(asgi, "TenantRegistry", _OneTenant), patch.object(asgi, "HostNames", _NoHostNames):
        return asgi.create_asgi(settings, database=database)


# The statements of the service's list, as its ORM sends them: the number, the page, and the page's tags.
_COUNT = "SELECT count(id) FROM team"
_PAGE = """
SELECT id, slug, name, description, is_active, created_at, updated_at FROM team ORDER BY name, id LIMIT $1 OFFSET $2
"""
_TAGS = """
SELECT tt.team_id, g.id, g.slug, g.name FROM team_tag tt JOIN tag g ON g.id = tt.tag_id
 WHERE tt.team_id = ANY($1) ORDER BY g.name
"""

_encode = msgspec.json.Encoder().encode
_decode_tags = msgspec.json.Decoder(list[TagBrief]).decode


def create_raw(settings: Settings) -> ASGIApp:
    """The same framework and server, and nothing else: a pool of the driver's, a transaction, a struct.

    No authentication, no injection, no guards, no middleware. The pool's reset on release is left out, since it is a
    round trip that the product does without as well.
    """
    user, session = UUID(os.environ["BENCH_SOLO_USER"]), UUID(os.environ["BENCH_SOLO_SESSION"])
    pool: asyncpg.Pool[asyncpg.Record]

    async def leave(_: Any) -> None:
        """Nothing of a session is ever changed here."""

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        nonlocal pool
        size = settings.database_pool_size
        async with asyncpg.create_pool(
            os.environ["BENCH_SOLO_URL"], min_size=1, max_size=size, reset=leave, connection_class=DriverConnection
        ) as made:
            pool = made
            yield

    @get("/api/teams/{team_id:uuid}")
    async def raw_team(team_id: FromPath[UUID]) -> Response[bytes]:
        async with pool.acquire() as connection, connection.transaction(readonly=True):
            principal = await connection.fetchrow(_PRINCIPAL, session, user)
            row = await connection.fetchrow(_TEAM.sql, team_id)
        if principal is None or row is None:
            return Response(b"", status_code=404)
        return _json(_team(row, _decode_tags(row["tags"]) if row["tags"] else []))

    @get("/api/teams")
    async def raw_teams() -> Response[bytes]:
        async with pool.acquire() as connection, connection.transaction(readonly=True):
            principal = await connection.fetchrow(_PRINCIPAL, session, user)
            total = await connection.fetchval(_COUNT)
            rows = await connection.fetch(_PAGE, 50, 0)
            tags = await connection.fetch(_TAGS, [row["id"] for row in rows])
        if principal is None:
            return Response(b"", status_code=404)
        found: dict[UUID, list[TagBrief]] = {row["id"]: [] for row in rows}
        for tag in tags:
            found[tag["team_id"]].append(TagBrief(id=tag["id"], slug=tag["slug"], name=tag["name"]))
        return _json(Page(items=[_team(row, found[row["id"]]) for row in rows], total=total, page=1, page_size=50))

    return Litestar([raw_team, raw_teams], lifespan=[lifespan], openapi_config=None, logging_config=None)


def _team(row: asyncpg.Record, tags: list[TagBrief]) -> TeamRead:
    return TeamRead(
        id=row["id"],
        slug=row["slug"],
        name=row["name"],
        description=row["description"],
        is_active=row["is_active"],
        tags=tags,
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _json(value: msgspec.Struct) -> Response[bytes]:
    return Response(_encode(value), media_type="application/json")
