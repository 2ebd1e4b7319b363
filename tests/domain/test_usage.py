"""What an organization is told of its own use."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from tenantry.platform.usage.draining import write_down
from tenantry.tenancy.context import control_scope
from tenantry.tenancy.use import add_requests, jobs_key, today
from tenantry.tenancy.wiring import scope_times
from tests.platform.support import as_admin
from tests.world import Caller, TenantHandle, World


async def read(caller: Caller, **params: str) -> dict[str, Any]:
    answer = await caller.get("/api/tenant/usage", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def drain(world: World, tenant: TenantHandle) -> None:
    scope = control_scope(scope_times(world.settings), read_only=False)
    async with world.database.transaction(scope) as transaction:
        await write_down(transaction.session, world.app.state.redis, [(today(), tenant.tenant_id)])


async def test_an_organization_sees_its_own_use_up_to_this_moment_and_nobody_elses(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    redis = world.app.state.redis
    before = await read(acme)
    assert (before["from"], before["to"]) == (f"{today().replace(day=1)}", f"{today()}")
    for round_ in range(1, 3):
        await add_requests(redis, acme.tenant_id, today(), 50_000)
        await redis.hincrby(jobs_key(today()), str(acme.tenant_id), 3)
        found = await read(acme)
        # What a request's own script counts comes on top, where there is one.
        assert 50_000 * round_ <= found["total"]["requests"] < 50_000 * round_ + 1000
        assert found["total"]["jobs"] == 3 * round_
        assert found["days"][-1]["day"] == f"{today()}"
        assert found["isLive"]
        # Whether it is written down or not makes no difference.
        await drain(world, acme)
        again = await read(acme)
        assert abs(again["total"].pop("requests") - found["total"].pop("requests")) < 10
        assert again["total"] == found["total"]
    assert (await read(globex))["total"]["requests"] < 50_000
    assert (await read(globex))["total"]["jobs"] == 0


async def test_storage_and_seats_are_the_most_of_the_days_that_were_asked_for(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    async with as_admin(world.addresses) as admin:
        for tenant, day, requests, storage, seats in (
            (acme, "2025-03-30", 1, 900, 9),
            (acme, "2025-03-31", 2, 100, 3),
            (acme, "2025-04-01", 3, None, None),
            (acme, "2025-04-02", 4, 200, 2),
            (globex, "2025-04-01", 5, 10_000, 50),
        ):
            await admin.execute(
                "INSERT INTO platform.usage_day (tenant_id, day, plan, requests, storage_bytes, seats)"
                " VALUES ($1, $2, 'free', $3, $4, $5)",
                tenant.tenant_id,
                datetime.date.fromisoformat(day),
                requests,
                storage,
                seats,
            )
    found = await read(acme, **{"from": "2025-03-31", "to": "2025-04-02"})
    assert [(day["day"], day["requests"], day["seats"]) for day in found["days"]] == [
        ("2025-03-31", 2, 3),
        ("2025-04-01", 3, None),
        ("2025-04-02", 4, 2),
    ]
    assert found["total"] == {"requests": 9, "jobs": 0, "storageBytes": 200, "seats": 3}


async def test_whoever_may_see_the_organization_may_see_its_use(acme: TenantHandle) -> None:
    viewer = await acme.add_user("vera", "viewer")
    assert (await read(viewer))["isLive"]
    assert (await acme.http.get("/api/tenant/usage")).status_code == 401


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"from": "2025-04-02", "to": "2025-04-01"}, "from"),
        ({"from": "2020-01-01", "to": "2025-04-01"}, "from"),
        ({"from": "9999-12-31"}, "from"),
        ({"from": "soon"}, "from"),
    ],
)
async def test_a_period_that_is_none_is_refused(acme: TenantHandle, params: dict[str, str], field: str) -> None:
    refused = await acme.get("/api/tenant/usage", params=params)
    assert refused.status_code == 422, refused.text
    assert [error["field"] for error in refused.json()["errors"]] == [field]


async def test_without_redis_an_organization_sees_what_is_written_down(
    world: World, acme: TenantHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_requests(world.app.state.redis, acme.tenant_id, today(), 70)
    await drain(world, acme)
    await add_requests(world.app.state.redis, acme.tenant_id, today(), 5000)

    def away(**_: object) -> Any:
        raise RedisConnectionError("away")

    with monkeypatch.context() as patch:
        patch.setattr(world.app.state.redis, "pipeline", away)
        found = await read(acme)
    assert not found["isLive"]
    assert 70 <= found["total"]["requests"] < 5000
