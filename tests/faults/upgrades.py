"""Two releases of one product as programs: this one, and the next, which has a migration of each tree and needs both.

Both have one resource more than the application, which enqueues jobs that leave a row each time they take effect.
In the next release there is a job of a new name, a parameter more on the old one, a table in the shared schema that
requests read, and a column in tenants' schemas that jobs read of tenants that have it. `RELEASE_CODE`, `RELEASE_TREE`
and `RELEASE_OLDEST` say which. granian is given `serve`; `python -m tests.faults.upgrades worker` is the real worker.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated
from uuid import uuid4

from litestar import Controller, post
from litestar.params import Body
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry import features
from tenantry.cli import main, processes
from tenantry.jobs.definition import Job, job
from tenantry.kernel.feature import Feature
from tenantry.kernel.schema import BaseStruct, ShortText
from tenantry.kernel.service import Injected
from tenantry.tenancy import release
from tenantry.tenancy.context import TenantContext
from tenantry.tenancy.guards import requires_permission
from tests.tree import _KNOW_THE_FOLDER

__all__ = ("GREETING", "SHARED", "serve")

GREETING = "good morning"
SHARED = f"""
op.create_table("greeting", sa.Column("text", sa.Text(), nullable=False), schema="platform")
op.execute("INSERT INTO platform.greeting VALUES ('{GREETING}')")
op.execute("GRANT SELECT ON platform.greeting TO tenantry_tenant")
""".strip()
"""The next release's revision of the shared tree; that of tenants' is `tests.faults.releases.EXPAND`."""

_FOLDER = Path(os.environ.get("RELEASE_TREE", "."))
_IS_NEXT = os.environ.get("RELEASE_CODE") == "next"

# Every run that takes effect is a row of its own (tests/jobs/effects.py says why).
_LEAVE = text("INSERT INTO tag (id, slug, name, created_at, updated_at) VALUES (:id, :slug, :name, now(), now())")
_GREET = text("SELECT text FROM platform.greeting")
_NEEDED = text("SELECT count(slogan) FROM team")


async def _leave(session: AsyncSession, name: str) -> None:
    number = uuid4()
    await session.execute(_LEAVE, {"id": number, "slug": f"s-{number.hex}", "name": f"{name}#{number.hex}"})


# As few attempts as there may be: a worker that spent one on what it does not know would be noticed.
@job("effect", retries=2, timeout=60, backoff=0.1)
async def effect(session: AsyncSession, name: str) -> None:
    await _leave(session, name)


@job("effect", retries=2, timeout=60, backoff=0.1)
async def greeting_effect(session: AsyncSession, tenant: TenantContext, name: str, greeting: str = "") -> None:
    await _leave(session, name)
    assert greeting in {"", GREETING}
    if tenant.revision == os.environ["RELEASE_HEAD"]:
        await session.execute(_NEEDED)


@job("polish", retries=2, timeout=60, backoff=0.1)
async def polish(session: AsyncSession, name: str) -> None:
    await _leave(session, name)


_JOBS: tuple[Job, ...] = (greeting_effect, polish) if _IS_NEXT else (effect,)


class EffectCreate(BaseStruct):
    name: ShortText


class EffectController(Controller):
    path = "/effects"

    @post("/", operation_id="MakeEffect", guards=[requires_permission("teams:write")])
    async def make_effect(
        self, db_session: Injected[AsyncSession], data: Annotated[EffectCreate, Body()]
    ) -> EffectCreate:
        if not _IS_NEXT:
            await effect.enqueue(db_session, name=data.name)
            return data
        greeting = await db_session.scalar(_GREET)
        # Each third of them: a new name, a new parameter, and one that the release before knows.
        kind = sum(data.name.encode()) % 3
        if kind == 0:
            await polish.enqueue(db_session, name=data.name)
        else:
            given = {"greeting": greeting} if kind == 1 else {}
            await greeting_effect.enqueue(db_session, name=data.name, **given)
        return data


def _become() -> None:
    for module in _KNOW_THE_FOLDER:
        vars(module)["migrations_folder"] = lambda: _FOLDER
    release.OLDEST_SERVED = os.environ["RELEASE_OLDEST"]
    vars(features)["JOBS"] = (*features.JOBS, *_JOBS)
    vars(processes)["worker_command"] = lambda: [sys.executable, "-m", "tests.faults.upgrades", "worker"]


def serve() -> ASGIApp:
    """The release's application, which says with each answer which one it is."""
    _become()
    from tenantry import asgi

    effects = Feature(name="effects", controllers=(EffectController,))
    vars(asgi)["DOMAIN_FEATURES"] = (*features.DOMAIN_FEATURES, effects)
    app = asgi.serve_app()
    name = (b"x-release", os.environ["RELEASE_CODE"].encode())

    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], name]
            await send(message)

        await app(scope, receive, send_named)

    return named


if __name__ == "__main__":
    _become()
    main()
