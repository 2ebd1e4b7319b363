"""Hashing costs: however many log in at once, everybody else is served meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tenantry.kernel.security import PasswordHasher
from tests.world import TenantHandle, World


async def _log_in(world: World, slug: str, email: str) -> int:
    answer = await world.http.post(
        "/api/auth/login", json={"tenant": slug, "email": email, "password": "not the password"}
    )
    assert answer.status_code in {401, 429, 503}, answer.text
    assert (answer.status_code != 401) == ("Retry-After" in answer.headers)
    return answer.status_code


async def test_log_ins_that_wait_for_their_hash_hold_no_connection(
    world: World, acme: TenantHandle, globex: TenantHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four times as many as the pool has connections."""
    hasher: PasswordHasher = world.app.state.hasher
    pool: Any = world.database.engine.pool
    many = 4 * (pool.size() + pool._max_overflow)
    waiting, go = 0, asyncio.Event()
    real = hasher.verify

    async def verify(stored: str | None, password: str, *, key: object = None) -> bool:
        nonlocal waiting
        waiting += 1
        await go.wait()
        return False

    monkeypatch.setattr(hasher, "verify", verify)
    flood = [asyncio.create_task(_log_in(world, acme.slug, f"user-{each}@people.example")) for each in range(many)]
    try:
        async with asyncio.timeout(30):
            while waiting < many:
                await asyncio.gather(*(tenant.get("/api/users/me") for tenant in (acme, globex)))
        assert pool.checkedout() == 0
        async with asyncio.timeout(5):
            answers = await asyncio.gather(*(tenant.get("/api/teams") for tenant in (acme, globex)))
        assert [each.status_code for each in answers] == [200, 200]
        # And whoever writes.
        assert (await globex.post("/api/teams", json={"name": "Red"})).status_code == 201
    finally:
        go.set()
        assert set(await asyncio.gather(*flood)) == {401}
        monkeypatch.setattr(hasher, "verify", real)


async def test_a_flood_is_turned_away_and_others_are_served_while_it_lasts(
    world: World, acme: TenantHandle, globex: TenantHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With real hashes: beyond a queue it is refused, at once, and the event loop is never kept busy.

    429 is for the organization's own share, of connections or of hashes, and 503 for the hasher as a whole.
    """
    # The tests' hashes are cheap, and so is their queue: a quick machine would get through a longer one.
    monkeypatch.setattr(world.app.state.hasher, "_limit", 4)
    flood = asyncio.gather(*(_log_in(world, acme.slug, f"user-{each}@people.example") for each in range(200)))
    served = 0
    while not flood.done():
        async with asyncio.timeout(5):
            assert (await globex.get("/api/users/me")).status_code == 200
        served += 1
    answers = await flood
    assert 401 in answers
    assert {429, 503} & set(answers)
    assert served > 1
    await world.log_in(globex.slug, globex.owner_email)
