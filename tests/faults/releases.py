"""Four releases of one product, in which a team's `motto` becomes its `slogan`, as granian is given them.

Each is the whole application of this project with one resource more, whose code differs from release to release, and
with a tree of revisions and a range of its own. `RELEASE_CODE`, `RELEASE_TREE` and `RELEASE_OLDEST` say which.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, get, put
from litestar.di import Provide
from litestar.params import Body, FromPath
from litestar.types import ASGIApp
from sqlalchemy import Text, Uuid, bindparam, column, select, table, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry import asgi
from tenantry.features import DOMAIN_FEATURES
from tenantry.kernel.feature import Feature
from tenantry.kernel.schema import BaseStruct, ShortText
from tenantry.kernel.service import Injected
from tenantry.tenancy import release
from tenantry.tenancy.connection import ScopedConnection
from tenantry.tenancy.guards import requires_permission
from tenantry.tenancy.hot import HotStatement
from tenantry.tenancy.request import provide_connection, tenant_request
from tests.tree import _KNOW_THE_FOLDER

__all__ = ("CODES", "CONTRACT", "EXPAND", "FILL", "MOTTO", "serve")

# The revisions. Each keeps its locks for a while, so that requests run into them.
_HOLD = 'op.execute("SELECT pg_sleep(0.15)")'
MOTTO = 'op.add_column("team", sa.Column("motto", sa.Text(), nullable=True))'
EXPAND = f'op.add_column("team", sa.Column("slogan", sa.Text(), nullable=True))\n{_HOLD}'
FILL = f'op.execute("UPDATE team SET slogan = motto WHERE slogan IS DISTINCT FROM motto")\n{_HOLD}'
CONTRACT = f'op.drop_column("team", "motto")\n{_HOLD}'


@dataclass(frozen=True)
class Code:
    """What a release's code does with the two columns."""

    writes: tuple[str, ...]
    reads: Callable[[str | None], str]
    """Given the tenant's revision."""


CODES: Mapping[str, Code] = {
    "before": Code(("motto",), lambda _: "motto"),
    # The column is there for the next release: while this one is deployed, neither it nor all tenants have it.
    "expand": Code(("motto",), lambda _: "motto"),
    # As long as the last release may write `motto` alone, `slogan` may be stale; once it is filled, nobody does.
    "fill": Code(("motto", "slogan"), lambda revision: "motto" if revision == release.OLDEST_SERVED else "slogan"),
    "contract": Code(("slogan",), lambda _: "slogan"),
}

_team = table("team", column("id", Uuid), column("motto", Text), column("slogan", Text))
_READ = {
    name: HotStatement(select(_team.c[name].label("text")).where(_team.c.id == bindparam("team_id", type_=Uuid)))
    for name in ("motto", "slogan")
}


class SloganUpdate(BaseStruct):
    text: ShortText


class SloganRead(BaseStruct):
    text: str | None


class SloganController(Controller):
    path = "/slogans"

    @put("/{team_id:uuid}", operation_id="SetSlogan", guards=[requires_permission("teams:write")])
    async def set_slogan(
        self, db_session: Injected[AsyncSession], team_id: FromPath[UUID], data: Annotated[SloganUpdate, Body()]
    ) -> SloganRead:
        values: dict[str, Any] = dict.fromkeys(_code().writes, data.text)
        await db_session.execute(update(_team).where(_team.c.id == team_id).values(values))
        return SloganRead(text=data.text)

    @get(
        "/{team_id:uuid}",
        operation_id="GetSlogan",
        guards=[requires_permission("teams:read")],
        dependencies={"connection": Provide(provide_connection)},
    )
    async def get_slogan(
        self, request: Request[Any, Any, Any], connection: Injected[ScopedConnection], team_id: FromPath[UUID]
    ) -> SloganRead:
        tenant = tenant_request(request).tenant
        assert tenant is not None
        row = await _READ[_code().reads(tenant.revision)].one(connection, team_id=team_id)
        assert row is not None
        return SloganRead(text=row["text"])


def _code() -> Code:
    return CODES[os.environ["RELEASE_CODE"]]


def serve() -> ASGIApp:
    """The application of the release that the environment names."""
    folder = Path(os.environ["RELEASE_TREE"])
    for module in _KNOW_THE_FOLDER:
        vars(module)["migrations_folder"] = lambda: folder
    release.OLDEST_SERVED = os.environ["RELEASE_OLDEST"]
    slogans = Feature(name="slogans", controllers=(SloganController,))
    vars(asgi)["DOMAIN_FEATURES"] = (*DOMAIN_FEATURES, slogans)
    return asgi.serve_app()
