"""Processes of several releases behind one balancer, and traffic that goes on while they are replaced."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from tenantry.cli.processes import granian_command
from tenantry.dev.process import Account, GuardedProcess, find_free_port, wait_until
from tests.databases import Template
from tests.faults.deployment import Session, _environment
from tests.faults.load import DEADLINE
from tests.tree import TenantTree, program_of
from tests.world import PASSWORD, settings_for

__all__ = ("Fleet", "Release", "Replica", "Traffic")


@dataclass(frozen=True)
class Release:
    """Code, the tree that it brings along, and the oldest revision that it serves."""

    code: str
    tree: TenantTree
    oldest: str


@dataclass(eq=False)
class Replica:
    """An API process of a release."""

    release: Release
    process: GuardedProcess
    client: httpx.AsyncClient
    in_flight: int = 0

    async def stop(self) -> None:
        """As an orchestrator does, once nothing is sent to it any more."""
        await self.client.aclose()
        self.process.send(signal.SIGTERM)
        assert await asyncio.to_thread(self.process.wait, 20) == 0


class Fleet:
    """Starts processes, which are gone when the stack is closed; their clients go with the event loop's block."""

    factory = "tests.faults.releases:serve"
    """What granian is given, instead of the application."""

    def __init__(self, stack: ExitStack, addresses: Template, home: Path) -> None:
        self._stack = stack
        self._addresses = addresses
        self._home = home
        self._numbers = itertools.count(1)
        self._clients: list[httpx.AsyncClient] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            await client.aclose()

    def _start(self, name: str, command: list[str], environment: dict[str, str]) -> GuardedProcess:
        return self._stack.enter_context(
            GuardedProcess(
                command,
                log=self._home / f"{next(self._numbers)}-{name}.log",
                account=Account("direct"),
                stop_signal=signal.SIGTERM,
                environment=environment,
            )
        )

    async def replica(self, release: Release, **overrides: object) -> Replica:
        """A new API process, ready to serve."""
        port = find_free_port()
        environment = _environment(self._addresses, self._home, {"port": port, **overrides})
        environment |= {
            "RELEASE_CODE": release.code,
            "RELEASE_TREE": str(release.tree.folder),
            "RELEASE_HEAD": release.tree.head,
            "RELEASE_OLDEST": release.oldest,
        }
        command = granian_command(settings_for(self._addresses, self._home, port=port, **overrides))
        assert command[-1] == "tenantry.asgi:serve_app"
        process = self._start(f"api-{release.code}", [*command[:-1], self.factory], environment)
        url = f"http://127.0.0.1:{port}"

        def is_ready() -> bool:
            try:
                return httpx.get(f"{url}/health/ready").status_code == 200
            except httpx.TransportError:
                return False

        assert await asyncio.to_thread(wait_until, is_ready, 240), process.log_tail(60)
        self._clients.append(httpx.AsyncClient(base_url=url, timeout=DEADLINE))
        return Replica(release, process, self._clients[-1])

    def provisioner(self, release: Release) -> GuardedProcess:
        environment = _environment(self._addresses, self._home, {})
        environment["TENANTRY_DATABASE_OWNER_URL"] = self._addresses.owner_url
        return self._start(f"provisioner-{release.code}", program_of(release.tree, "provisioner"), environment)


@dataclass
class Traffic:
    """Every tenant makes teams, names their slogans and reads all of it back, each time through another process.

    Whatever is not answered with success is written down in `wrong`, and so is whatever was lost or is somebody else's.
    """

    targets: list[Replica]
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By release and status."""
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0
    slogans: dict[str, dict[str, str]] = field(default_factory=dict)
    """What was acknowledged, by tenant and team."""

    def __post_init__(self) -> None:
        self._turn = itertools.count()
        self._numbers = itertools.count(1)
        self._stopped = False
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, tenant: Session) -> None:
        """One more tenant, with two people at work."""
        self.slogans[tenant.slug] = {}
        self._tasks += [asyncio.create_task(self._work(tenant)) for _ in range(2)]

    async def stop(self) -> None:
        self._stopped = True
        await asyncio.gather(*self._tasks)

    async def more(self, count: int, release: Release) -> None:
        """Go on until as many more requests were answered by that release."""
        wanted = self._by(release) + count
        await self._until(lambda: self._by(release) >= wanted)

    async def drain(self, replica: Replica) -> None:
        """Send nothing more there, and wait for what is under way."""
        self.targets.remove(replica)
        await self._until(lambda: replica.in_flight == 0)

    def _by(self, release: Release) -> int:
        return sum(count for (code, _), count in self.answers.items() if code == release.code)

    async def _until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def _work(self, tenant: Session) -> None:
        mine: dict[str, str] = {}
        while not self._stopped:
            number = next(self._numbers)
            made = await self._send("POST", "/api/teams", tenant, {"name": f"{tenant.slug} {number}"})
            if made is not None:
                team_id = made["id"]
                for each in (team_id, random.choice([team_id, *mine])):
                    text = f"{tenant.slug} says {next(self._numbers)}"
                    if await self._send("PUT", f"/api/slogans/{each}", tenant, {"text": text}):
                        mine[each] = self.slogans[tenant.slug][each] = text
                for each in (team_id, random.choice([team_id, *mine])):
                    await self._check(tenant, each)
                read = await self._send("GET", f"/api/teams/{team_id}", tenant)
                if read is not None and read["name"] != f"{tenant.slug} {number}":
                    self.wrong.append(f"{tenant.slug} was shown the team {read['name']}")
            listed = await self._send("GET", "/api/teams?orderBy=createdAt&sortOrder=desc&pageSize=20", tenant)
            if listed is not None and any(not item["name"].startswith(tenant.slug) for item in listed["items"]):
                self.wrong.append(f"{tenant.slug} was shown somebody else's teams")
            if number % 5 == 0:
                body = {"tenant": tenant.slug, "email": tenant.email, "password": PASSWORD}
                await self._send("POST", "/api/auth/login", None, body)

    async def _check(self, tenant: Session, team_id: str) -> None:
        said = self.slogans[tenant.slug].get(team_id)
        read = await self._send("GET", f"/api/slogans/{team_id}", tenant)
        if read is not None and read["text"] != said:
            self.wrong.append(f"{tenant.slug} had said {said!r}, and reads {read['text']!r}")

    async def check_all(self, tenants: list[Session]) -> None:
        """Everything that was acknowledged is there."""
        for tenant in tenants:
            assert self.slogans[tenant.slug]
            for team_id in self.slogans[tenant.slug]:
                await self._check(tenant, team_id)

    async def _send(
        self, method: str, path: str, tenant: Session | None, body: dict[str, str] | None = None
    ) -> dict[str, Any] | None:
        replica = self.targets[next(self._turn) % len(self.targets)]
        what = f"{method} {path} at {replica.release.code}"
        begun = time.monotonic()
        replica.in_flight += 1
        try:
            answer = await replica.client.request(method, path, headers=tenant.headers if tenant else {}, json=body)
        except httpx.TransportError as error:
            self.wrong.append(f"{what}: {error!r}")
            # Nobody is there to wait for: without a pause this would be a loop around nothing.
            await asyncio.sleep(0.02)
            return None
        finally:
            replica.in_flight -= 1
            self.slowest = max(self.slowest, time.monotonic() - begun)
            self._changed.set()
        self.answers[replica.release.code, answer.status_code] += 1
        if not answer.is_success:
            self.wrong.append(f"{what}: {answer.status_code} {answer.text}")
            return None
        return answer.json()  # type: ignore[no-any-return]
