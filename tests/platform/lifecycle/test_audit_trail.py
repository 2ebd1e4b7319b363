"""An organization's audit trail moves with it: whole, and as little to be changed as before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.audit.chain import Chain, verify_chain
from tenantry.kernel.storage import Storage
from tests.platform.lifecycle.support import carry_out, found, run, seal
from tests.platform.support import eventually
from tests.world import PASSWORD, World

KEY = "imports/acme.zip"


async def _verify(api: World, tenant_id: UUID) -> Chain:
    @asynccontextmanager
    async def open_session() -> AsyncIterator[AsyncSession]:
        scope = api.app.state.registry.by_id(tenant_id).read_scope
        async with api.database.transaction(scope) as transaction:
            yield transaction.session

    return await verify_chain(open_session)


async def _archived_and_restored(api: World, tenant_id: UUID) -> UUID:
    await run(api, "/platform/tenants/acme/archive", {"reason": "moving"})
    await run(api, "/platform/tenants/acme/restore")
    return tenant_id


async def _masked_clone(api: World, _: UUID) -> UUID:
    body = {
        "slug": "acme-sandbox",
        "name": "Sandbox",
        "maskEmails": True,
        "ownerEmail": "owner@acme.example",
        "ownerPassword": PASSWORD,
    }
    answer = await api.operator.post("/platform/tenants/acme/clone", json=body)
    assert answer.status_code == 202, answer.text
    await carry_out(api)
    return UUID(answer.json()["id"])


async def _import(api: World, _: UUID) -> UUID:
    done = await run(api, "/platform/tenants/acme/export", {"credentials": False})
    storage = Storage.open(api.settings)
    await storage.put_bytes(KEY, await storage.get_bytes(done["result"]["key"]))
    body = {"key": KEY, "slug": "acme-two", "ownerEmail": "owner@acme.example", "ownerPassword": PASSWORD}
    answer = await api.operator.post("/platform/imports", json=body)
    assert answer.status_code == 202, answer.text
    await carry_out(api)
    return UUID(answer.json()["id"])


@pytest.mark.parametrize("move", [_archived_and_restored, _masked_clone, _import])
async def test_the_trail_arrives_whole_and_goes_on(api: World, move: Callable[[World, UUID], Awaitable[UUID]]) -> None:
    acme = await found(api, "acme")
    before = await _verify(api, acme.id)
    assert before.events > 0
    assert before.broken is None
    moved = await move(api, acme.id)

    async def is_served() -> bool:
        tenant = api.app.state.registry.by_id(moved)
        return tenant is not None and tenant.is_active

    await eventually(is_served, 5)
    arrived = await _verify(api, moved)
    assert (arrived.seals, arrived.events, arrived.hash, arrived.broken) == (
        before.seals,
        before.events,
        before.hash,
        None,
    )
    slug = next(tenant.slug for tenant in api.app.state.registry.all() if tenant.id == moved)
    owner = await api.log_in(slug, "owner@acme.example")
    assert (await owner.post("/api/tags", json={"name": "After"})).status_code == 201
    assert await seal(api, moved) >= 1
    assert (await _verify(api, moved)).broken is None
    for statement in ("UPDATE audit_event SET actor = 'x'", "DELETE FROM audit_sealed_event"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with api.database.transaction(api.app.state.registry.by_id(moved).write_scope) as transaction:
                await transaction.connection.fetch(statement)
