"""What is left of a purged tenant is a record of the past: nobody meets it by chance, and nobody can change it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import pytest

from tenantry.platform.tenants.schemas import TenantStatus
from tenantry.tenancy.models import TENANT_STATES
from tests.databases import Template
from tests.platform.belongings import Furnished, ask_for_purge, furnish, provisioner
from tests.platform.support import open_api, tenant_body
from tests.world import World


@pytest.fixture
async def api(database_addresses: Template, tmp_path: Path) -> AsyncIterator[World]:
    async with open_api(database_addresses, tmp_path, provision_wait=0.05, registry_poll_interval=0.05) as opened:
        yield opened


async def _purge(api: World, tenant: Furnished) -> None:
    await ask_for_purge(api, tenant)
    async with provisioner(api) as worker:
        assert await worker.work_off() == 1
    assert (await api.operator.get(f"/platform/certificates/{tenant.id}")).status_code == 200


def test_tenants_can_be_listed_by_every_state_that_there_is() -> None:
    assert get_args(TenantStatus) == TENANT_STATES


async def test_a_purged_tenant_is_listed_only_for_those_who_ask_for_purged_ones(api: World) -> None:
    acme = await furnish(api, "acme")
    await furnish(api, "globex")
    await _purge(api, acme)

    async def listed(**params: str) -> list[str]:
        answer = await api.operator.get("/platform/tenants", params=params)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert page["total"] == len(page["items"])
        return [item["slug"] for item in page["items"]]

    assert await listed() == ["globex"]
    assert await listed(search="purged") == []
    assert await listed(status="active") == ["globex"]
    assert await listed(status="purged") == [f"purged-{acme.id.hex}"]
    assert (await api.operator.get("/platform/tenants", params={"status": "gone"})).status_code == 422
    # Nobody who has mistyped a slug has meant it.
    unknown = (await api.operator.get(f"/platform/tenants/purged-{'0' * 32}")).json()
    assert (unknown["status"], unknown["nearest"]) == (404, [])


async def test_nothing_of_a_purged_tenant_can_be_changed_and_it_takes_up_nothing(api: World) -> None:
    acme = await furnish(api, "acme")
    await _purge(api, acme)
    tombstone = f"/platform/tenants/purged-{acme.id.hex}"
    before = (await api.operator.get(tombstone)).json()
    for change in ({"slug": "acme"}, {"name": "Ann Archer"}, {"plan": "team"}):
        refused = await api.operator.patch(tombstone, json=change)
        assert (refused.status_code, refused.json()["type"]) == (409, "/problems/invalid-transition")
        assert (refused.json()["state"], refused.json()["allowed"]) == ("purged", [])
    assert (await api.operator.get(tombstone)).json() == before
    usage = await api.operator.get(f"{tombstone}/usage")
    assert usage.status_code == 200, usage.text
    nothing = {"size": 0, "users": None, "lastActivityAt": None, "pendingOperation": None, "jobs": None}
    assert nothing.items() <= usage.json().items()


async def test_nobody_can_take_the_name_that_a_tenant_will_have_when_it_is_purged(api: World) -> None:
    """Otherwise its purge would end in a conflict, every time."""
    acme, globex = await furnish(api, "acme"), await furnish(api, "globex")
    slug = f"purged-{acme.id.hex}"
    for refused in (
        await api.operator.post("/platform/tenants", json=tenant_body(slug)),
        await api.operator.patch(f"/platform/tenants/{globex.slug}", json={"slug": slug}),
    ):
        assert refused.status_code == 422
        assert [error["field"] for error in refused.json()["errors"]] == ["slug"]
    assert (await api.operator.patch(f"/platform/tenants/{globex.slug}", json={"slug": "purged-x"})).status_code == 200
    await _purge(api, acme)
