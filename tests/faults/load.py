"""Light load on a deployment: what was acknowledged, and every answer that should not have been."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx

from tests.faults.deployment import Deployment, Session
from tests.world import PASSWORD

__all__ = ("DEADLINE", "Load", "stored_names")

DEADLINE = 15.0
"""Seconds after which a request counts as hanging: more than every time-out of the deployment together."""


@dataclass
class Load:
    """Every tenant makes and reads teams, over and over, until it is stopped.

    A team's name begins with its tenant's slug, so that a row in the wrong place shows itself.
    """

    deployment: Deployment
    tenants: Sequence[Session]
    may_lose_connections: bool = False
    with_logins: bool = False
    acknowledged: dict[str, set[str]] = field(default_factory=dict)
    answers: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    unavailable: list[str] = field(default_factory=list)
    """What was answered with 503, and how."""
    slowest: float = 0.0

    def __post_init__(self) -> None:
        self.acknowledged = {tenant.slug: set() for tenant in self.tenants}
        self._numbers = itertools.count(1)
        self._stopped = False
        self._changed = asyncio.Event()

    @property
    def good(self) -> int:
        return sum(count for status, count in self.answers.items() if 200 <= status < 300)

    async def __aenter__(self) -> Load:
        self._client = httpx.AsyncClient(base_url=self.deployment.url, timeout=DEADLINE)
        self._tasks = [
            asyncio.create_task(self._work(tenant, logs_in=self.with_logins and number == 0))
            for tenant in self.tenants
            for number in range(3)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopped = True
        await asyncio.gather(*self._tasks)
        await self._client.aclose()

    async def until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Go on until the condition holds, which is looked at after every answer; fails when it takes too long."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def more(self, count: int) -> None:
        """Go on until as many more requests have succeeded."""
        wanted = self.good + count
        await self.until(lambda: self.good >= wanted)

    async def _work(self, tenant: Session, *, logs_in: bool) -> None:
        while not self._stopped:
            name = f"{tenant.slug} {next(self._numbers)}"
            made = await self._send("POST", "/api/teams", tenant.headers, {"name": name})
            if made is not None and made.status_code == 201:
                self.acknowledged[tenant.slug].add(name)
            read = await self._send("GET", "/api/teams?orderBy=createdAt&sortOrder=desc&pageSize=20", tenant.headers)
            if read is not None and read.status_code == 200:
                strangers = [item["name"] for item in read.json()["items"] if not item["name"].startswith(tenant.slug)]
                if strangers:
                    self.wrong.append(f"{tenant.slug} was shown {strangers}")
            # One at a time: those under way count as failures, and where Redis stalls, in it and in the database.
            if logs_in:
                body = {"tenant": tenant.slug, "email": tenant.email, "password": PASSWORD}
                await self._send("POST", "/api/auth/login", {}, body)

    async def _send(
        self, method: str, path: str, headers: dict[str, str], body: dict[str, str] | None = None
    ) -> httpx.Response | None:
        begun = time.monotonic()
        try:
            answer = await self._client.request(method, path, headers=headers, json=body)
        except httpx.TimeoutException as error:
            self.wrong.append(f"{method} {path} hung: {error!r}")
            return None
        except httpx.TransportError as error:
            if not self.may_lose_connections:
                self.wrong.append(f"{method} {path}: {error!r}")
            # A refused connection answers at once: without a pause this would be a loop around nothing.
            await asyncio.sleep(0.02)
            return None
        finally:
            self.slowest = max(self.slowest, time.monotonic() - begun)
            self._changed.set()
        self.answers[answer.status_code] += 1
        if answer.status_code == 503:
            self.unavailable.append(f"{method} {path}: {answer.text}")
            if "Retry-After" not in answer.headers:
                self.wrong.append(f"{method} {path}: a 503 without Retry-After")
            await asyncio.sleep(0.02)
        elif not 200 <= answer.status_code < 300:
            self.wrong.append(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer


def stored_names(deployment: Deployment, tenant: Session) -> set[str]:
    """The names of all of a tenant's teams."""
    found: set[str] = set()
    for page in itertools.count(1):
        answer = deployment.client.get(
            "/api/teams", params={"page": page, "pageSize": 200, "orderBy": "createdAt"}, headers=tenant.headers
        )
        assert answer.status_code == 200, answer.text
        items = answer.json()["items"]
        found |= {item["name"] for item in items}
        if len(items) < 200:
            break
    return found
