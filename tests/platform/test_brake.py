"""What strangers have mailed is counted: for an address, for a network and for all, with Redis and without."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import func, select, update

from tenantry.platform.strangers.jobs import forget_public_requests
from tenantry.platform.strangers.models import PublicRequest
from tests.databases import Template
from tests.jobs.support import job_redis_url, open_ring
from tests.mail.support import CONTROL
from tests.platform.strangers import platform_box, platform_waiting
from tests.platform.support import open_api
from tests.world import World

AWAY = "redis://127.0.0.1:1/0"
_numbers = itertools.count(1)


@asynccontextmanager
async def open_limited(addresses: Template, home: Path, redis_url: str, **limits: int) -> AsyncIterator[World]:
    """A deployment of its own, with limits that are soon met."""
    settings: dict[str, object] = {
        "signup": "true",
        "signup_mails_per_address": 2,
        "signup_mails_per_client": 3,
        "signup_mails": 4,
        "organizations_mails_per_address": 2,
        "organizations_mails_per_client": 3,
        "organizations_mails": 4,
        "trusted_proxies": "127.0.0.1/32",
        "redis_url": redis_url,
    }
    async with open_api(addresses, home, **(settings | limits)) as api:
        yield api


@pytest.fixture(params=["redis", "database"])
async def api(request: pytest.FixtureRequest, database_addresses: Template, tmp_path: Path) -> AsyncIterator[World]:
    """Once with an empty Redis, once with none: the promises are the same."""
    if request.param == "database":
        async with open_limited(database_addresses, tmp_path, AWAY) as opened:
            yield opened
        return
    async with open_ring(), open_limited(database_addresses, tmp_path, job_redis_url()) as opened:
        yield opened


async def ask(api: World, path: str, email: str, client: str) -> httpx.Response:
    body = {"email": email}
    if path == "/api/signup":
        body |= {"organization": "Umbrella"}
    return await api.http.post(path, json=body, headers={"X-Forwarded-For": client})


async def statuses(api: World, path: str, *asked: tuple[str, str]) -> list[int]:
    return [(await ask(api, path, f"{who}@people.example", client)).status_code for who, client in asked]


PATHS = pytest.mark.parametrize("path", ["/api/signup", "/api/auth/organizations"])


@PATHS
async def test_one_address_is_written_to_so_often_from_wherever_it_is_asked_for(api: World, path: str) -> None:
    asked = [("ann", "192.0.2.1"), ("ANN", "192.0.2.2"), ("ann", "192.0.2.3"), ("bob", "192.0.2.3")]
    assert await statuses(api, path, *asked) == [202, 202, 429, 202]
    assert len(await platform_waiting(api)) == 3


@PATHS
async def test_one_network_asks_so_often_whoever_the_mail_is_to(api: World, path: str) -> None:
    same = [("a", "2001:db8::1"), ("b", "2001:db8::2"), ("c", "2001:db8:0:0:ffff::1"), ("d", "2001:db8::1")]
    # What the client itself has written before the proxy did counts for nothing.
    forged = [("e", "192.0.2.9, 2001:db8::1")]
    assert await statuses(api, path, *same, *forged, ("f", "192.0.2.1")) == [202, 202, 202, 429, 429, 202]


@PATHS
async def test_everybody_together_asks_so_often_and_is_told_when_to_come_back(api: World, path: str) -> None:
    asked = [(f"u{number}", f"192.0.2.{number}") for number in range(4)]
    assert await statuses(api, path, *asked) == [202] * 4
    refused = await ask(api, path, "u5@people.example", "192.0.2.5")
    assert refused.status_code == 429
    assert 3500 < int(refused.headers["Retry-After"]) <= 3600
    # The other kind has a count of its own.
    other = "/api/signup" if path != "/api/signup" else "/api/auth/organizations"
    assert await statuses(api, other, ("u5", "192.0.2.5")) == [202]


@PATHS
async def test_what_is_refused_for_one_network_does_not_use_up_everybodys_share(api: World, path: str) -> None:
    flood = [(f"u{number}", "192.0.2.1") for number in range(12)]
    assert await statuses(api, path, *flood) == [202] * 3 + [429] * 9
    assert await statuses(api, path, ("ann", "192.0.2.2"), ("bob", "192.0.2.3")) == [202, 429]


async def test_after_an_hour_it_counts_no_more_and_is_forgotten(database_addresses: Template, tmp_path: Path) -> None:
    path = "/api/auth/organizations"
    async with open_limited(database_addresses, tmp_path, AWAY) as api:
        assert await statuses(api, path, ("ann", "192.0.2.1"), ("ann", "192.0.2.1"), ("ann", "192.0.2.1")) == [
            *(202, 202, 429)
        ]
        async with api.database.transaction(CONTROL) as transaction:
            await transaction.session.execute(
                update(PublicRequest).values(created_at=PublicRequest.created_at - func.make_interval(0, 0, 0, 0, 1))
            )
        assert await statuses(api, path, ("ann", "192.0.2.1")) == [202]
        async with api.database.transaction(CONTROL) as transaction:
            await forget_public_requests.enqueue(transaction.session)
            left = select(func.count()).select_from(PublicRequest)
            assert await transaction.session.scalar(left) == 3
        [job] = await platform_box(api, None).enqueued(None, forget_public_requests)
        assert job.name == "forget_public_requests"
        await platform_box(api, None).drain(None)
        async with api.database.transaction(CONTROL) as transaction:
            assert await transaction.session.scalar(left) == 1


async def test_what_redis_has_forgotten_the_database_has_counted(database_addresses: Template, tmp_path: Path) -> None:
    path = "/api/signup"
    async with open_ring() as ring, open_limited(database_addresses, tmp_path, job_redis_url()) as api:
        assert await statuses(api, path, ("ann", "192.0.2.1"), ("ann", "192.0.2.2")) == [202, 202]
        await ring.redis.flushdb()
        assert await statuses(api, path, ("ann", "192.0.2.3")) == [429]


async def test_a_flood_does_not_get_as_far_as_the_database(database_addresses: Template, tmp_path: Path) -> None:
    async with open_ring(), open_limited(database_addresses, tmp_path, job_redis_url()) as api:
        answers = await asyncio.gather(
            *(ask(api, "/api/signup", f"u{number}@people.example", "192.0.2.1") for number in range(30))
        )
        assert sorted(answer.status_code for answer in answers) == [202] * 3 + [429] * 27
        async with api.database.transaction(CONTROL) as transaction:
            assert await transaction.session.scalar(select(func.count()).select_from(PublicRequest)) == 3


async def test_the_rows_tell_neither_the_address_nor_the_network(database_addresses: Template, tmp_path: Path) -> None:
    async with open_limited(database_addresses, tmp_path, AWAY) as api:
        email = f"{uuid4().hex}@people.example"
        await ask(api, "/api/auth/organizations", email, "192.0.2.77")
        async with api.database.transaction(CONTROL) as transaction:
            rows = await transaction.connection.fetch(
                "SELECT r::text AS row FROM public_request r WHERE kind = $1", "organizations"
            )
            jobs = await transaction.connection.fetch(
                "SELECT o::text AS row FROM outbox o WHERE name = $1", "send_platform_mail"
            )
    assert len(rows) == len(jobs) == 1
    for row in (*rows, *jobs):
        assert email not in row["row"]
        assert "192.0.2.77" not in row["row"]
        assert email.encode().hex() not in row["row"]


async def test_a_process_that_cannot_tell_clients_apart_counts_addresses_and_all(
    database_addresses: Template, tmp_path: Path
) -> None:
    async with open_limited(database_addresses, tmp_path, AWAY) as api:
        answers = [
            await api.http.post("/api/auth/organizations", json={"email": f"u{number}@people.example"})
            for number in range(5)
        ]
        assert [answer.status_code for answer in answers] == [202] * 4 + [429]
