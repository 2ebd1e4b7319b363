"""From the outbox to the queues: when, and at what cost."""

from __future__ import annotations

import datetime
import json
from typing import Any

from tenantry.domain.tags.service import TagService
from tenantry.jobs.definition import job
from tenantry.jobs.relay import _RIPEN, _TAKE
from tenantry.tenancy.context import control_scope
from tenantry.tenancy.wiring import scope_times
from tests.databases import Template
from tests.jobs.api import JobApi, job_api
from tests.platform.support import as_admin
from tests.world import TenantHandle

__all__ = ("job_api",)

_TENANTS = 500
RAN: dict[str, datetime.datetime] = {}


@job("relayed", retries=2, timeout=10)
async def relayed(tags: TagService, name: str) -> None:
    RAN[name] = datetime.datetime.now(datetime.UTC)
    await tags.create({"name": name, "slug": name})


@job("relayed_platform", retries=2, timeout=10, platform=True)
async def relayed_platform(name: str) -> None:
    RAN[name] = datetime.datetime.now(datetime.UTC)


async def _buffers(admin: Any, statement: Any, **values: int) -> int:
    """Pages that a statement of the relay looks at."""
    sql: str = statement.text
    for name, value in values.items():
        sql = sql.replace(f":{name}", str(value))
    [found] = json.loads(await admin.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}"))
    return int(found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"])


async def test_what_everybody_has_to_do_tomorrow_costs_the_relay_nothing(database_addresses: Template) -> None:
    """It looks every second, in every worker. With 10,000 tenants it took 90 ms, in which it found nothing to do."""
    async with as_admin(database_addresses) as admin:
        await admin.execute(
            "INSERT INTO platform.tenant (id, slug, name, status, plan, owner_email, status_changed_at, created_at,"
            " updated_at) SELECT gen_random_uuid(), 'planted-' || n, 'Planted', 'active', 'free', 'a@planted.example',"
            f" now(), now(), now() FROM generate_series(1, {_TENANTS}) n;"
            "INSERT INTO platform.outbox (id, tenant_id, name, arguments, status, due, retries, timeout, meta,"
            " created_at, updated_at) SELECT gen_random_uuid(), id, 'probe', '{}', 'later', now() + interval '1 day',"
            " 3, 60, '{}', now(), now() FROM platform.tenant"
        )
        await admin.execute("VACUUM ANALYZE platform.outbox")
        assert await _buffers(admin, _RIPEN, most=5000) < 20
        assert await _buffers(admin, _TAKE, each=50, most=1000) < 20
        # That the measure is one: what waits now is looked through, tenant by tenant.
        await admin.execute("UPDATE platform.outbox SET status = 'pending'")
        assert await _buffers(admin, _TAKE, each=50, most=1000) > _TENANTS


async def test_what_is_for_later_waits_apart_and_runs_when_it_is_due(job_api: JobApi, acme: TenantHandle) -> None:
    RAN.clear()
    due = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1)
    later = await job_api.enqueue(acme, relayed, at=due, name="later")
    past = await job_api.enqueue(acme, relayed, at=due - datetime.timedelta(days=1), name="past")
    scope = control_scope(scope_times(job_api.api.settings), read_only=False)
    async with job_api.api.database.transaction(scope) as transaction:
        own = await relayed_platform.enqueue(transaction.session, at=due, name="own")
    assert [(await job_api.row(each))["status"] for each in (later, past, own)] == ["later", "pending", "later"]
    async with job_api.worker(relayed, relayed_platform):
        for each in (later, past, own):
            await job_api.until_gone(each)
    assert RAN["past"] <= min(RAN["later"], RAN["own"])
    # A second later, but for what the clock of the machine was set back meanwhile.
    assert due - datetime.timedelta(seconds=0.25) <= min(RAN["later"], RAN["own"])


async def test_a_key_is_taken_by_what_is_for_later_as_well(job_api: JobApi, acme: TenantHandle) -> None:
    tomorrow = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    first = await job_api.enqueue(acme, relayed, at=tomorrow, key="digest", name="first")
    assert await job_api.enqueue(acme, relayed, key="digest", name="second") == first
