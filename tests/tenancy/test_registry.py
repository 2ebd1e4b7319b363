from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tenantry.tenancy.connection import ScopedConnection
from tenantry.tenancy.registry import TenantRegistry
from tests.databases import Template
from tests.platform.support import make_provisioner, open_api, tenant_body
from tests.world import World


@pytest.fixture
async def api(database_addresses: Template, tmp_path: Path) -> AsyncIterator[World]:
    async with open_api(database_addresses, tmp_path, provision_wait=0.05) as opened:
        yield opened


async def _provision(api: World) -> None:
    worker = make_provisioner(api.addresses)
    try:
        assert await worker.work_off() == 1
    finally:
        await worker.close()


async def test_a_tenant_that_was_seen_while_it_was_made_can_be_logged_in_to_once_it_is_ready(api: World) -> None:
    assert (await api.operator.post("/platform/tenants", json=tenant_body("fresh"))).status_code == 202
    registry: TenantRegistry = api.app.state.registry
    seen = await registry.find_slug("fresh")
    assert seen is not None
    assert seen.status == "provisioning"
    # A process that has not yet heard of it: its view of the tenants is that of a moment ago.
    await registry.stop()
    await _provision(api)
    starting = asyncio.create_task(registry.start())
    await api.log_in("fresh", "owner@fresh.example")
    await starting


@pytest.mark.parametrize("seen", [True, False], ids=["saw it being made", "has not heard of it"])
async def test_a_token_is_believed_by_a_process_that_has_not_heard_that_its_tenant_is_ready(
    api: World, tmp_path: Path, seen: bool
) -> None:
    """Whoever balances sends the first requests of a new organization to any process."""
    registry: TenantRegistry = api.app.state.registry
    if not seen:
        await registry.stop()
    async with open_api(api.addresses, tmp_path, provision_wait=0.05) as other:
        assert (await other.operator.post("/platform/tenants", json=tenant_body("fresh"))).status_code == 202
        if seen:
            assert await registry.find_slug("fresh") is not None
            await registry.stop()
        await _provision(other)
        owner = await other.log_in("fresh", "owner@fresh.example")
    starting = asyncio.create_task(registry.start())
    answer = await api.http.get("/api/users/me", headers={"Authorization": f"Bearer {owner.access_token}"})
    assert (answer.status_code, answer.json().get("email")) == (200, "owner@fresh.example")
    await starting


async def test_an_invitation_is_accepted_by_a_process_that_has_not_heard_of_the_tenant(api: World) -> None:
    answer = await api.operator.post("/platform/tenants", json=tenant_body("fresh", ownerPassword=None))
    registry: TenantRegistry = api.app.state.registry
    await registry.stop()
    await _provision(api)
    starting = asyncio.create_task(registry.start())
    accepted = await api.http.post(
        "/api/auth/invitations/accept",
        json={"token": answer.json()["ownerInvitation"], "password": "correct horse battery"},
    )
    assert accepted.status_code == 200
    await starting


async def test_a_registry_that_is_stopped_when_its_connection_is_gone_stops(
    api: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry: TenantRegistry = api.app.state.registry
    real, polling = registry._poll, asyncio.Event()

    async def poll(connection: ScopedConnection) -> None:
        if polling.is_set():
            await real(connection)
            return
        polling.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            # What asyncpg's transaction does when it is left by a cancellation and cannot roll back.
            raise asyncpg.InterfaceError("connection is closed") from None

    monkeypatch.setattr(registry, "_poll", poll)
    registry._wake.set()
    await polling.wait()
    following, stopping = registry._task, asyncio.create_task(registry.stop())
    await asyncio.wait({stopping}, timeout=3)
    stopped = stopping.done()
    if following is not None:
        following.cancel()
    await stopping
    assert stopped
