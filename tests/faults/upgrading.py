"""A deployment of several processes of each kind behind one balancer, whose processes are replaced under traffic."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx

from tenantry.dev.process import GuardedProcess, child_pids
from tenantry.jobs.ring import Ring
from tenantry.kernel.redis import create_redis
from tests.databases import Template
from tests.faults.balancer import Balancer
from tests.faults.deployment import Session, _environment
from tests.faults.load import DEADLINE
from tests.faults.rolling import Fleet, Release, Replica
from tests.tree import program_of
from tests.world import PASSWORD

__all__ = ("DRAIN", "Estate", "Visitors", "check_effects", "end_of_jobs")

DRAIN = 10
"""Seconds; more than the balancer needs to hear of a process that ends, also on a machine that is busy."""


class Estate(Fleet):
    """API processes behind a balancer, workers and provisioners, of two releases."""

    factory = "tests.faults.upgrades:serve"

    def __init__(self, stack: ExitStack, addresses: Template, home: Path, balancer: Balancer) -> None:
        super().__init__(stack, addresses, home)
        self._balancer = balancer
        self.apis: list[Replica] = []
        self.workers: list[GuardedProcess] = []
        self.provisioners: list[GuardedProcess] = []
        self.ending: list[GuardedProcess] = []
        """What was told to end, and is perhaps still about it."""

    async def add_api(self, release: Release) -> None:
        self.apis.append(await self.replica(release, serve_drain=DRAIN))
        self._balancer.add(_port(self.apis[-1]))

    async def add_worker(self, release: Release) -> None:
        environment = _environment(
            self._addresses, self._home, {"worker_concurrency": 4, "worker_stall": 300, "log_level": "INFO"}
        )
        environment |= _names(release)
        worker = self._start(
            f"worker-{release.code}", [sys.executable, "-m", "tests.faults.upgrades", "worker"], environment
        )

        def works() -> bool:
            assert worker.poll() is None, worker.log_tail(60)
            return b"worker started" in worker.log.read_bytes()

        await _until(works, worker)
        self.workers.append(worker)

    async def replace_api(self, release: Release, visitors: Visitors) -> None:
        """The oldest API process, by one of that release.

        The process is told to end before the balancer hears of it, as Kubernetes does both at the same time.
        """
        await self.add_api(release)
        old = self.apis.pop(0)
        old.process.send(signal.SIGTERM)
        await visitors.more(20)
        self._balancer.remove(_port(old))
        self.ending.append(old.process)

    def kill_api(self) -> None:
        """The oldest, with all that is under way; the balancer hears of it at once."""
        old = self.apis.pop(0)
        for pid in (old.process.pid, *child_pids(old.process.pid)):
            os.kill(pid, signal.SIGKILL)
        self._balancer.remove(_port(old))

    async def replace_worker(self, release: Release) -> None:
        """Likewise; the old one ends what it has begun."""
        await self.add_worker(release)
        old = self.workers.pop(0)
        old.send(signal.SIGTERM)
        self.ending.append(old)

    def add_provisioner(self, release: Release) -> None:
        self.provisioners.append(self.provisioner(release))

    async def replace_provisioners(self, release: Release) -> None:
        """Each ends before the next begins: what it was at is rolled back, and done by another."""
        for _ in range(len(self.provisioners)):
            old = self.provisioners.pop(0)
            await asyncio.to_thread(old.close)
            self.add_provisioner(release)

    async def ended(self) -> None:
        """Wait until whatever was told to end has; each in order."""
        for process in self.ending:
            assert await asyncio.to_thread(process.wait, 120) == 0, process.log_tail(60)
        self.ending.clear()

    async def run(self, release: Release, *arguments: str) -> str:
        """A command of that release as the owner, as a deployment's Job runs it; what it printed."""
        environment = _environment(self._addresses, self._home, {})
        environment["TENANTRY_DATABASE_OWNER_URL"] = self._addresses.owner_url
        process = await asyncio.create_subprocess_exec(
            *program_of(release.tree, *arguments),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 300)
        assert process.returncode == 0, output.decode()
        return output.decode()


def _port(replica: Replica) -> int:
    port = urlsplit(str(replica.client.base_url)).port
    assert port is not None
    return port


def _names(release: Release) -> dict[str, str]:
    return {
        "RELEASE_CODE": release.code,
        "RELEASE_TREE": str(release.tree.folder),
        "RELEASE_HEAD": release.tree.head,
        "RELEASE_OLDEST": release.oldest,
    }


async def _until(condition: Callable[[], bool], process: GuardedProcess, seconds: float = 240) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(process.log_tail(60)) from None


@dataclass
class Visitors:
    """Every tenant makes teams, reads them, logs in and has jobs done, over connections that are kept."""

    url: str
    may_lose_connections: bool = False
    """Whether a process may be killed under a request: nobody knows then what has become of that one."""
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By release and status."""
    wrong: list[str] = field(default_factory=list)
    teams: dict[str, set[str]] = field(default_factory=dict)
    effects: dict[str, set[str]] = field(default_factory=dict)
    """What was acknowledged, by tenant."""
    doubtful: set[str] = field(default_factory=set)
    """Names of effects of which nobody knows."""
    slowest: float = 0.0

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._stopped = False
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        # A balancer of the application's own kind keeps its connections: a request is sent on one that was idle.
        self._client = httpx.AsyncClient(base_url=self.url, timeout=DEADLINE)

    def add(self, tenant: Session) -> None:
        """One more tenant, with two people at work."""
        self.teams[tenant.slug], self.effects[tenant.slug] = set(), set()
        self._tasks += [asyncio.create_task(self._work(tenant)) for _ in range(2)]

    async def stop(self) -> None:
        self._stopped = True
        await asyncio.gather(*self._tasks)
        await self._client.aclose()

    async def more(self, count: int, release: Release | None = None) -> None:
        """Go on until as many more requests were answered, by that release if one is named."""
        wanted = self._by(release) + count
        async with asyncio.timeout(240):
            while self._by(release) < wanted:
                self._changed.clear()
                await self._changed.wait()

    def _by(self, release: Release | None) -> int:
        return sum(count for (code, _), count in self.answers.items() if release is None or code == release.code)

    async def _work(self, tenant: Session) -> None:
        while not self._stopped:
            number = next(self._numbers)
            name = f"{tenant.slug} {number}"
            if await self._send("POST", "/api/teams", tenant, {"name": name}) is not None:
                self.teams[tenant.slug].add(name)
            if await self._send("POST", "/api/effects", tenant, {"name": name}) is not None:
                self.effects[tenant.slug].add(name)
            else:
                self.doubtful.add(name)
            listed = await self._send("GET", "/api/teams?orderBy=createdAt&sortOrder=desc&pageSize=20", tenant)
            if listed is not None and any(not item["name"].startswith(f"{tenant.slug} ") for item in listed["items"]):
                self.wrong.append(f"{tenant.slug} was shown somebody else's teams")
            if number % 5 == 0:
                body = {"tenant": tenant.slug, "email": tenant.email, "password": PASSWORD}
                await self._send("POST", "/api/auth/login", None, body)
            # Steady, and not all that there is to be had: the machine has processes to start meanwhile.
            await asyncio.sleep(0.2)

    async def _send(
        self, method: str, path: str, tenant: Session | None, body: dict[str, str] | None = None
    ) -> dict[str, Any] | None:
        begun = time.monotonic()
        try:
            answer = await self._client.request(method, path, headers=tenant.headers if tenant else {}, json=body)
        except httpx.TransportError as error:
            if not self.may_lose_connections or isinstance(error, httpx.TimeoutException):
                self.wrong.append(f"{method} {path}: {error!r}")
            # Nobody is there to wait for: without a pause this would be a loop around nothing.
            await asyncio.sleep(0.02)
            return None
        finally:
            self.slowest = max(self.slowest, time.monotonic() - begun)
            self._changed.set()
        self.answers[answer.headers.get("x-release", "nobody"), answer.status_code] += 1
        if not answer.is_success:
            self.wrong.append(f"{method} {path}: {answer.status_code} {answer.text}")
            return None
        return answer.json()  # type: ignore[no-any-return]


async def end_of_jobs(addresses: Template, tenants: Sequence[Session]) -> None:
    """Wait until nothing is to be done any more: what runs a second time would do so after its row is gone."""
    admin = await asyncpg.connect(addresses.admin_url)
    redis = create_redis(addresses.redis_url, timeout=5)
    left: list[Any] = []
    try:
        ring = Ring(redis)
        async with asyncio.timeout(240):
            while True:
                left = await admin.fetch("SELECT name, status, error FROM platform.outbox LIMIT 5")
                if not left and not await ring.inflight():
                    return
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"not done: {left}") from None
    finally:
        await redis.aclose()
        await admin.close()


async def check_effects(addresses: Template, visitors: Visitors, tenants: Sequence[Session]) -> None:
    """Everything that was acknowledged is there: each team, and each job's effect, once, where it belongs."""
    admin = await asyncpg.connect(addresses.admin_url)
    try:
        for tenant in tenants:
            schema = f"t_{tenant.id.replace('-', '')}"
            rows = await admin.fetch(
                f"SELECT split_part(name, '#', 1) AS name, count(*) AS n FROM \"{schema}\".tag GROUP BY 1"
            )
            assert visitors.effects[tenant.slug]
            assert {row["name"] for row in rows} - visitors.doubtful == visitors.effects[tenant.slug]
            assert {row["n"] for row in rows} == {1}
            stored = {row["name"] for row in await admin.fetch(f'SELECT name FROM "{schema}".team')}
            assert visitors.teams[tenant.slug] <= stored
    finally:
        await admin.close()
