"""A column is renamed under load, in three releases: each deployed, then rolled out. No request fails.

Real processes: granian and a provisioner for each release, on one database, and rollouts through the API. What differs
between the releases is their tree, the range that they serve, and the code of one resource, which is the test's own
(`tests/faults/releases.py`); around it, and on the same table, the application's own teams and log-ins are used. What
it does not show is a release that changes the application's own models.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tenantry.dev.process import GuardedProcess
from tests.databases import OPERATOR_EMAIL, OPERATOR_PASSWORD, Template
from tests.faults.deployment import Session
from tests.faults.releases import CONTRACT, EXPAND, FILL, MOTTO
from tests.faults.rolling import Fleet, Release, Replica, Traffic
from tests.platform.rollouts.listening import parse
from tests.platform.support import eventually, tenant_body
from tests.tree import TenantTree
from tests.world import PASSWORD

pytestmark = pytest.mark.slow


def _releases(folder: Path) -> list[Release]:
    """Each with the revisions of those before, and one more; it serves that and the one before."""
    made: list[Release] = []
    steps = [MOTTO]
    for code, step in (("before", None), ("expand", EXPAND), ("fill", FILL), ("contract", CONTRACT)):
        steps += [step] if step else []
        tree = TenantTree(folder / code)
        *_, oldest, _ = [tree.base, *(tree.add(step) for step in steps)]
        made.append(Release(code, tree, oldest if step else tree.head))
    return made


class Operator:
    """Somebody who deploys: makes tenants and rolls out, through whichever process serves."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.headers: dict[str, str] = {}

    async def log_in(self) -> None:
        body = {"email": OPERATOR_EMAIL, "password": OPERATOR_PASSWORD}
        answer = await self.client.post("/platform/auth/login", json=body)
        assert answer.status_code == 200, answer.text
        self.headers = {"Authorization": f"Bearer {answer.json()['accessToken']}"}

    async def create_tenant(self, slug: str) -> Session:
        made = await self.client.post("/platform/tenants", json=tenant_body(slug), headers=self.headers)
        assert made.status_code in {201, 202}, made.text
        if made.status_code == 202:
            # A machine that has other things to do: the answer says where to look.
            await eventually(lambda: self._is_active(slug), 120)
        email = f"owner@{slug}.example"
        body = {"tenant": slug, "email": email, "password": PASSWORD}
        answer = await self.client.post("/api/auth/login", json=body)
        assert answer.status_code == 200, answer.text
        return Session(slug, email, answer.json()["accessToken"], made.json()["id"])

    async def _is_active(self, slug: str) -> bool:
        found = await self.client.get(f"/platform/tenants/{slug}", headers=self.headers)
        return bool(found.json()["status"] == "active")

    async def roll_out(self) -> dict[str, Any]:
        """Start a rollout, and follow it to its end."""
        started = await self.client.post("/platform/rollouts", json={"concurrency": 2}, headers=self.headers)
        assert started.status_code == 202, started.text
        kept = ""
        async with self.client.stream("GET", f"{started.headers['Location']}/events", headers=self.headers) as answer:
            assert answer.status_code == 200
            async for text in answer.aiter_text():
                *blocks, kept = (kept + text).split("\r\n\r\n")
                for event in map(parse, blocks):
                    if event.kind == "end":
                        return event.data  # type: ignore[no-any-return]
        raise AssertionError("the stream ended before the rollout")


async def _revisions(addresses: Template) -> Counter[str]:
    """How many tenants are at which."""
    admin = await asyncpg.connect(addresses.admin_url)
    try:
        return Counter(row["revision"] for row in await admin.fetch("SELECT revision FROM platform.tenant"))
    finally:
        await admin.close()


async def _columns(addresses: Template) -> set[tuple[str, ...]]:
    """The columns of `team` that this is about, in each schema that has any."""
    admin = await asyncpg.connect(addresses.admin_url)
    try:
        rows = await admin.fetch(
            "SELECT table_schema, array_agg(column_name::text ORDER BY column_name) AS names"
            "  FROM information_schema.columns WHERE table_name = 'team' AND column_name IN ('motto', 'slogan')"
            " GROUP BY table_schema"
        )
    finally:
        await admin.close()
    return {tuple(row["names"]) for row in rows}


async def _replace(old: GuardedProcess, fleet: Fleet, release: Release) -> GuardedProcess:
    await asyncio.to_thread(old.close)
    return fleet.provisioner(release)


async def _deploy(fleet: Fleet, traffic: Traffic, old: Replica, release: Release) -> Replica:
    """Beside the old process, then instead of it, while both are used."""
    new = await fleet.replica(release)
    traffic.targets.append(new)
    await asyncio.gather(traffic.more(60, old.release), traffic.more(60, release))
    await traffic.drain(old)
    await old.stop()
    return new


def test_a_column_is_renamed_in_three_releases_and_no_request_fails(
    database_addresses: Template, tmp_path: Path
) -> None:
    releases = _releases(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    with ExitStack() as stack:
        traffic, refused = asyncio.run(_scenario(Fleet(stack, database_addresses, home), database_addresses, releases))
    logs = "\n".join(log.read_text(errors="replace")[-3000:] for log in sorted(home.glob("*.log")))
    assert traffic.wrong == [], logs
    assert {status for _, status in traffic.answers} <= {200, 201}
    assert {code for code, _ in traffic.answers} == {release.code for release in releases}
    assert traffic.slowest < 5, "somebody waited for more than a lock"
    # The first release comes back by mistake: nobody's data are touched by it, and each is told why.
    assert len(refused) == 7
    for answer in refused:
        assert (answer["status"], answer["type"]) == (503, "/problems/tenant-revision")
        assert (answer["revision"], answer["newestServed"]) == (releases[-1].tree.head, releases[0].tree.head)


async def _scenario(fleet: Fleet, addresses: Template, releases: list[Release]) -> tuple[Traffic, list[dict[str, Any]]]:
    async with fleet:
        first, *later = releases
        replica = await fleet.replica(first)
        provisioner = fleet.provisioner(first)
        operator = Operator(replica.client)
        await operator.log_in()
        tenants = [await operator.create_tenant(f"org-{number}") for number in range(4)]
        traffic = Traffic([replica])
        for tenant in tenants:
            traffic.add(tenant)
        try:
            await traffic.more(100, first)
            for number, release in enumerate(later):
                replica = await _deploy(fleet, traffic, replica, release)
                operator.client = replica.client
                provisioner = await _replace(provisioner, fleet, release)
                # At the newest revision, or in a schema that the last provisioner had in stock.
                tenants.append(await operator.create_tenant(f"new-{number}"))
                traffic.add(tenants[-1])
                await traffic.more(60, release)
                before = await _revisions(addresses)
                assert before.keys() <= {release.oldest, release.tree.head}
                assert before[release.oldest] >= len(tenants) - 1
                answered = traffic.answers.total()
                ended = await operator.roll_out()
                assert traffic.answers.total() > answered + 20, "nobody was there while it was rolled out"
                assert (ended["status"], ended["done"], ended["failed"]) == ("done", before[release.oldest], 0)
                assert await _revisions(addresses) == {release.tree.head: len(tenants)}
                await traffic.more(60, release)
        finally:
            await traffic.stop()
        await traffic.check_all(tenants)
        assert await _columns(addresses) == {("slogan",)}
        return traffic, await _refusals(await fleet.replica(first), tenants)


async def _refusals(replica: Replica, tenants: list[Session]) -> list[dict[str, Any]]:
    return [(await replica.client.get("/api/teams", headers=tenant.headers)).json() for tenant in tenants]
