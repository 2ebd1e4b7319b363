"""Webhooks whose workers die while they send: every event arrives, in order, and none of anybody else's."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from uuid_utils.compat import uuid7

from tenantry.events.record import record_event
from tenantry.tenancy.context import TenantContext
from tenantry.tenancy.wiring import create_database
from tests.faults.site import Site, open_site
from tests.platform.support import eventually, open_api
from tests.receiver import Receiver, open_receiver
from tests.world import settings_for

pytestmark = pytest.mark.slow

_EVENTS = 300
"""Of each tenant."""
_KILLS = 4


@dataclass
class Told:
    """What one tenant recorded, and what its endpoint was told."""

    tenant: TenantContext
    recorded: list[str] = field(default_factory=list)

    def heard(self, receiver: Receiver) -> list[str]:
        """Ids in the order in which each came first."""
        target = f"/hooks/{self.tenant.slug}"
        return list(dict.fromkeys(each.headers["webhook-id"] for each in receiver.received if each.target == target))


async def _make_endpoints(site: Site, receiver: Receiver) -> None:
    async with open_api(site.addresses, site.home) as api:
        for tenant in site.tenants:
            owner = await api.log_in(tenant.slug, f"owner@{tenant.slug}.example")
            body = {"url": f"{receiver.url}/{tenant.slug}", "events": ["tag.created"]}
            made = await owner.post("/api/webhooks", json=body)
            assert made.status_code == 201, made.text


async def _record(site: Site, told: list[Told]) -> None:
    database = create_database(settings_for(site.addresses, site.home), application_name="test", pool_size=2)
    try:
        for number in range(_EVENTS):
            for each in told:
                transaction = await database.begin(each.tenant.write_scope)
                event = await record_event(transaction.session, "tag.created", subject=uuid7())
                if number % 10 == 9:
                    await transaction.close()
                    continue
                await transaction.commit()
                await transaction.close()
                each.recorded.append(str(event.id))
    finally:
        await database.close()


async def test_workers_are_killed_while_they_send() -> None:
    async with open_receiver() as receiver, open_site(workers=2) as site:
        await _make_endpoints(site, receiver)
        told = [Told(tenant) for tenant in site.tenants]
        recording = asyncio.create_task(_record(site, told))
        for number in range(1, _KILLS + 1):

            async def far_enough(wanted: int = number * 100) -> bool:
                return len(receiver.received) >= wanted

            await eventually(far_enough, 120)
            await site.kill_one()
        await recording

        async def all_told() -> bool:
            return all(len(each.heard(receiver)) >= len(each.recorded) for each in told)

        await eventually(all_told, 180)
        await eventually(site.drained, 120)
    for each in told:
        assert each.heard(receiver) == each.recorded
    # What was on its way when a worker died came once more, and nothing else did.
    again = len(receiver.received) - sum(len(each.recorded) for each in told)
    assert 0 <= again <= _KILLS * 2
