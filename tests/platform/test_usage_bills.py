"""What operators are told of use: one tenant day by day, all of them in a month, and what a purge leaves of it."""

from __future__ import annotations

import csv
import datetime
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from tenantry.platform.usage.schemas import month_of
from tenantry.platform.usage.service import export_pieces
from tenantry.tenancy.context import control_scope
from tenantry.tenancy.use import add_requests, jobs_key, today
from tenantry.tenancy.wiring import scope_times
from tests.databases import Template
from tests.platform.belongings import Furnished, ask_for_purge, furnish, open_redis, provisioner
from tests.platform.support import as_admin, open_api
from tests.world import World

MIB = 1024 * 1024


@pytest.fixture
async def api(database_addresses: Template, tmp_path: Path) -> AsyncIterator[World]:
    async with open_api(database_addresses, tmp_path, provision_wait=0.05, registry_poll_interval=0.05) as opened:
        yield opened


async def plant(api: World, tenant: Furnished, day: str, requests: int, jobs: int, **fields: object) -> None:
    values = {"plan": "free", "storage_bytes": None, "seats": None, **fields}
    async with as_admin(api.addresses) as admin:
        await admin.execute(
            "INSERT INTO platform.usage_day (tenant_id, day, requests, jobs, plan, storage_bytes, seats)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7)",
            tenant.id,
            datetime.date.fromisoformat(day),
            requests,
            jobs,
            *values.values(),
        )


async def november(api: World) -> tuple[Furnished, Furnished]:
    acme, globex = await furnish(api, "acme"), await furnish(api, "globex")
    await plant(api, acme, "2024-10-31", 1000, 1000)
    await plant(api, acme, "2024-11-01", 5, 1, storage_bytes=2 * MIB, seats=3)
    await plant(api, acme, "2024-11-02", 6, 0, storage_bytes=4 * MIB, seats=4)
    await plant(api, acme, "2024-11-30", 7, 2, plan="team")
    await plant(api, acme, "2024-12-01", 1000, 1000)
    await plant(api, globex, "2024-11-30", 1, 0, seats=1)
    return acme, globex


async def test_a_month_is_exported_with_a_line_for_each_tenant_and_plan(api: World) -> None:
    acme, globex = await november(api)
    answer = await api.operator.get("/platform/usage", params={"month": "2024-11"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("application/x-ndjson")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="usage-2024-11.jsonl"'
    assert answer.headers["Cache-Control"] == "no-store"
    common = {"period": "2024-11", "tenantId": str(acme.id), "tenant": "acme"}
    assert [json.loads(line) for line in answer.text.splitlines()] == [
        common
        | {
            "plan": "free",
            "days": 2,
            "requests": 11,
            "jobs": 1,
            "storageBytesMax": 4 * MIB,
            "storageBytesMean": 3 * MIB,
            "seatsMax": 4,
            "seatsMean": 3.5,
        },
        common
        | {
            "plan": "team",
            "days": 1,
            "requests": 7,
            "jobs": 2,
            "storageBytesMax": None,
            "storageBytesMean": None,
            "seatsMax": None,
            "seatsMean": None,
        },
        common
        | {
            "tenantId": str(globex.id),
            "tenant": "globex",
            "plan": "free",
            "days": 1,
            "requests": 1,
            "jobs": 0,
            "storageBytesMax": None,
            "storageBytesMean": None,
            "seatsMax": 1,
            "seatsMean": 1.0,
        },
    ]


async def test_a_month_is_exported_day_by_day_as_csv(api: World) -> None:
    await november(api)
    answer = await api.operator.get("/platform/usage", params={"month": "2024-11", "format": "csv", "rows": "day"})
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert answer.text.endswith("\r\n")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["tenant"], row["period"], row["requests"], row["seatsMax"], row["days"]) for row in rows] == [
        ("acme", "2024-11-01", "5", "3", "1"),
        ("acme", "2024-11-02", "6", "4", "1"),
        ("acme", "2024-11-30", "7", "", "1"),
        ("globex", "2024-11-30", "1", "1", "1"),
    ]


@pytest.mark.parametrize(("form", "expected"), [("csv", b"period,tenantId,tenant,plan,"), ("jsonl", b"")])
async def test_a_month_of_which_there_is_nothing_is_an_empty_export(api: World, form: str, expected: bytes) -> None:
    answer = await api.operator.get("/platform/usage", params={"month": "2020-01", "format": form})
    assert answer.status_code == 200
    assert answer.content.startswith(expected)
    assert len(answer.content.splitlines()) == bool(expected)


async def test_an_export_is_read_piece_by_piece_and_holds_no_connection_meanwhile(api: World) -> None:
    await november(api)
    scope = control_scope(scope_times(api.settings), read_only=True)
    pool: Any = api.database.engine.pool
    pieces = []
    async for piece in export_pieces(api.database, scope, "2024-11", rows="tenant", form="jsonl", chunk=1):
        assert pool.checkedout() == 0
        pieces.append(piece.count(b"\n"))
    assert pieces == [2, 1]


@pytest.mark.parametrize(
    "wrong", [{}, {"month": "2026-13"}, {"month": "november"}, {"month": "2024-11", "format": "xml"}]
)
async def test_a_month_that_is_none_is_refused(api: World, wrong: dict[str, str]) -> None:
    refused = await api.operator.get("/platform/usage", params=wrong)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["source"] == "query"


async def test_the_document_tells_both_forms_of_the_export(world: World) -> None:
    document = (await world.http.get("/schema/openapi.json")).json()
    answer = document["paths"]["/platform/usage"]["get"]["responses"]["200"]
    assert answer["content"].keys() == {"application/x-ndjson", "text/csv"}


def test_a_month_has_its_first_and_its_last_day() -> None:
    assert month_of("2024-02") == (datetime.date(2024, 2, 1), datetime.date(2024, 2, 29))
    assert month_of("2026-12") == (datetime.date(2026, 12, 1), datetime.date(2026, 12, 31))
    with pytest.raises(ValueError, match="2026-11"):
        month_of("2026-1")


async def test_operators_see_what_one_tenant_uses_up_to_this_moment(api: World) -> None:
    acme, globex = await november(api)
    async with open_redis(api) as redis:
        before = await usage(api, "acme")
        await add_requests(redis, acme.id, today(), 4)
        await add_requests(redis, globex.id, today(), 90)
        await redis.hincrby(jobs_key(today()), str(acme.id), 2)  # type: ignore[misc]
        found = await usage(api, "acme")
    old = before["today"] or {"requests": 0, "jobs": 0}
    assert found["isLive"]
    # What a request's own script counts comes on top, where there is one.
    assert 4 <= found["today"]["requests"] - old["requests"] <= 6
    assert found["today"]["jobs"] - old["jobs"] == 2
    assert found["today"]["day"] == today().isoformat()
    assert found["today"]["plan"] == "free"
    assert found["total"]["requests"] == sum(day["requests"] for day in found["days"])
    assert found["size"] > 100_000
    assert found["users"] == 1
    assert found["connections"] == 0
    assert found["jobs"]["active"] == 0
    past = await usage(api, "acme", **{"from": "2024-11-01", "to": "2024-11-30"})
    assert [day["requests"] for day in past["days"]] == [5, 6, 7]
    assert past["total"] == {"requests": 18, "jobs": 3, "storageBytes": 4 * MIB, "seats": 4}
    assert past["today"] is None


async def usage(api: World, slug: str, **params: str) -> dict[str, Any]:
    answer = await api.operator.get(f"/platform/tenants/{slug}/usage", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def test_connections_in_a_tenants_tables_are_seen(api: World) -> None:
    acme, _ = await furnish(api, "acme"), await furnish(api, "globex")
    await api.app.state.registry.refresh()
    context = api.app.state.registry.by_id(acme.id)
    async with api.database.transaction(context.read_scope) as transaction:
        await transaction.connection.fetch("SELECT id FROM team", timeout=5)
        assert (await usage(api, "acme"))["connections"] == 1
        assert (await usage(api, "globex"))["connections"] == 0


async def test_without_redis_operators_see_what_is_written_down(api: World, monkeypatch: pytest.MonkeyPatch) -> None:
    acme = await furnish(api, "acme")
    await plant(api, acme, today().isoformat(), 1018, 0)

    def away(*_: object, **__: object) -> Any:
        raise RedisConnectionError("away")

    redis = api.app.state.redis
    for name in ("pipeline", "hgetall"):
        monkeypatch.setattr(redis, name, away)
    found = await usage(api, "acme")
    assert (found["isLive"], found["jobs"]) == (False, None)
    assert found["total"]["requests"] == 1018


async def test_a_period_that_is_none_is_refused(api: World) -> None:
    await furnish(api, "acme")
    for params in ({"from": "2024-11-02", "to": "2024-11-01"}, {"from": "2020-01-01"}, {"to": "yesterday"}):
        refused = await api.operator.get("/platform/tenants/acme/usage", params=params)
        assert refused.status_code == 422, refused.text


async def test_what_a_purged_tenant_has_used_is_kept_with_its_last_minute_for_the_bills(api: World) -> None:
    acme, globex = await furnish(api, "acme"), await furnish(api, "globex")
    async with open_redis(api) as redis:
        for tenant in (acme, globex):
            await add_requests(redis, tenant.id, today(), 7000)
            await redis.hincrby(jobs_key(today()), str(tenant.id), 5)  # type: ignore[misc]
        # What this process has still to say of its requests.
        await api.app.state.use.hand_over()
        await api.app.state.use_marks.flush()
        await ask_for_purge(api, acme)
        async with provisioner(api) as worker:
            assert await worker.work_off() == 1
        left = await redis.hkeys(jobs_key(today()))  # type: ignore[misc]
        marks = await redis.smembers("{platform}:use-dirty")  # type: ignore[misc]
    assert str(acme.id).encode() not in left
    assert str(globex.id).encode() in left
    assert not [mark for mark in marks if mark.endswith(str(acme.id).encode())]
    lines = await api.operator.get("/platform/usage", params={"month": f"{today():%Y-%m}"})
    [line] = [line for line in map(json.loads, lines.text.splitlines()) if line["tenantId"] == str(acme.id)]
    assert line["tenant"] == f"purged-{acme.id.hex}"
    assert 7000 <= line["requests"] < 7100
    assert line["jobs"] == 5
    tombstone = await usage(api, f"purged-{acme.id.hex}")
    assert tombstone["total"]["requests"] == line["requests"]
    assert UUID(line["tenantId"]) == acme.id
