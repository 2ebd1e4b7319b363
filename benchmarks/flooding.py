"""Fairness: fifty organizations at work as usual, and one that floods; what the fifty notice, with limits and without.

A real API, a worker, PostgreSQL and Valkey, all on this machine, with two processes of the API beside one another: one
as it is delivered, one with its bulkheads switched off. The fifty send at a fixed rate, and their latencies count from
when a request was due. Quiet and flooded phases take turns, of either process: a machine that is busy with other things
is so for all of them.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import asyncpg
import msgspec
from redis.asyncio import Redis

from benchmarks.deployment import DATABASE, Deployment, open_deployment
from benchmarks.servers import ServerFailed, serve
from benchmarks.steady import Ask, Heard, Plan
from tenantry.jobs.queue import RingQueue
from tenantry.jobs.ring import Ring, Share
from tenantry.kernel.security import PasswordHasher
from tenantry.tenancy.models import schema_name
from tenantry.tenancy.redis import queue_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.run import Progress
    from benchmarks.servers import Server

__all__ = ("AIM", "FLOODS", "Fairness", "Options", "Phase", "measure_fairness")

AIM = 1.5
Flood = Literal["reads", "lists", "log-ins", "jobs", "all"]
FLOODS: tuple[Flood, ...] = ("reads", "lists", "log-ins", "jobs", "all")
_ROOT = Path(__file__).parents[1]
_QUIET = 50
_PASSWORD = "correct horse battery"
_LOG_INS = "log-in"
_MANY_TEAMS = 3000
"""Of the one that floods: its lists are work for PostgreSQL."""
_JOB = "forget_old_invitations"
_JOBS_AHEAD = 2000
_ROWS = """
INSERT INTO team (id, slug, name, description, is_active, created_at, updated_at)
     SELECT uuidv7(), 'flood-' || n, 'Flood ' || n, repeat('x', 200), true, now(), now() FROM generate_series(1, {}) n
"""


class Options(msgspec.Struct, frozen=True):
    """Times in seconds, rates a second."""

    floods: tuple[Flood, ...] = FLOODS
    rounds: int = 4
    seconds: float = 8.0
    rate: float = 60.0
    """Of the fifty together."""
    log_in_rate: float = 2.0
    """Of the fifty together, besides."""
    connections: int = 64
    """Of the flood."""
    request_rate: float | None = 100.0
    """Requests a second that every plan grants, those of `team` as it is shipped; None: as many as come."""
    home: Path | None = None
    settings: dict[str, str] = {}
    """Of the process with limits, by their names in the environment without the prefix."""


class Phase(msgspec.Struct, frozen=True):
    """What the fifty noticed in one phase; latencies in milliseconds."""

    flood: Flood
    limits: bool
    flooded: bool
    latencies: list[float]
    log_ins: list[float]
    failed: int
    """Answers to the fifty other than 2xx."""
    flood_statuses: dict[str, int]


class Fairness(msgspec.Struct, frozen=True):
    """Everything that was found."""

    options: Options
    phases: list[Phase]

    def p99(self, flood: Flood, *, limits: bool, flooded: bool, log_ins: bool = False) -> float:
        """Of all rounds together; 0 without any. Of log-ins, which are few, the 95th percentile."""
        found = sorted(
            latency
            for phase in self.phases
            if (phase.flood, phase.limits, phase.flooded) == (flood, limits, flooded)
            for latency in (phase.log_ins if log_ins else phase.latencies)
        )
        return percentile(found, 0.95 if log_ins else 0.99)

    def ratio(self, flood: Flood, *, limits: bool, log_ins: bool = False) -> float:
        """Of the p99 beside the flood to that of the same process without."""
        quiet = self.p99(flood, limits=limits, flooded=False, log_ins=log_ins)
        return self.p99(flood, limits=limits, flooded=True, log_ins=log_ins) / quiet if quiet else 0.0

    def spread(self, flood: Flood, *, limits: bool) -> tuple[float, float]:
        """The smallest and the largest ratio of one round's p99."""
        chosen = [phase for phase in self.phases if (phase.flood, phase.limits) == (flood, limits)]
        quiet = [percentile(sorted(phase.latencies), 0.99) for phase in chosen if not phase.flooded]
        loud = [percentile(sorted(phase.latencies), 0.99) for phase in chosen if phase.flooded]
        ratios = [b / a for a, b in zip(quiet, loud, strict=True) if a]
        return (min(ratios), max(ratios)) if ratios else (0.0, 0.0)


def percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def _request(method: str, path: str, *, token: str | None = None, body: object = None) -> bytes:
    data = b"" if body is None else msgspec.json.encode(body)
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    return "\r\n".join([*lines, "", ""]).encode() + data


class _Site:
    """Who asks what."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        callers = deployment.manifest.callers
        self.quiet, self.loud = callers[:_QUIET], callers[_QUIET]
        tokens = deployment.tokens(callers)
        self.tokens, self.loud_token = tokens[:_QUIET], tokens[_QUIET]

    def usual(self) -> list[Ask]:
        """Of each of the fifty: mostly reads of one thing, some lists, some changes."""
        found = []
        for caller, token in zip(self.quiet, self.tokens, strict=True):
            team = f"/api/teams/{caller.teams[0]}"
            found.append(Ask("usual", _request("GET", team, token=token), 0.7))
            found.append(Ask("usual", _request("GET", "/api/teams", token=token), 0.2))
            changed = {"description": "Changed as people do."}
            found.append(Ask("usual", _request("PATCH", team, token=token, body=changed), 0.1))
        return found

    def log_ins(self, numbers: range) -> list[Ask]:
        return [
            Ask(
                _LOG_INS,
                _request(
                    "POST",
                    "/api/auth/login",
                    body={"tenant": f"org-{n}", "email": f"owner@org-{n}.example", "password": _PASSWORD},
                ),
            )
            for n in numbers
        ]

    def flood(self, flood: Flood) -> list[Ask]:
        reads = [Ask("reads", _request("GET", f"/api/teams/{self.loud.teams[0]}", token=self.loud_token))]
        path = "/api/teams?pageSize=200&search=flood&orderBy=name"
        lists = [Ask("lists", _request("GET", path, token=self.loud_token))]
        log_ins = self.log_ins(range(_QUIET, _QUIET + 1))
        return {"reads": reads, "lists": lists, "log-ins": log_ins, "jobs": [], "all": reads + lists + log_ins}[flood]

    async def prepare(self, options: Options) -> None:
        """Passwords that are right, many rows for the one that floods, and its plan's limits."""
        hasher = PasswordHasher(2, 19_456, 1, 1)
        try:
            hashed = await hasher.hash(_PASSWORD)
        finally:
            hasher.close()
        admin = await asyncpg.connect(self.deployment.postgres.url(DATABASE))
        try:
            for caller in (*self.quiet, self.loud):
                await admin.execute(
                    f'UPDATE "{schema_name(caller.tenant_id)}".user_account SET hashed_password = $1', hashed
                )
            loud = schema_name(self.loud.tenant_id)
            await admin.execute(f'SET search_path TO "{loud}"')
            if not await admin.fetchval("SELECT count(*) FROM team WHERE slug LIKE 'flood-%'"):
                await admin.execute(_ROWS.format(_MANY_TEAMS))
            await admin.execute("ANALYZE team")
            await admin.execute("UPDATE platform.plan SET request_rate = $1", options.request_rate)
        finally:
            await admin.close()


def _spawn(plan: Plan, path: Path, *, nice: int = 0) -> subprocess.Popen[bytes]:
    path.write_bytes(msgspec.json.encode(plan))
    path.chmod(0o600)
    command = [sys.executable, "-m", "benchmarks.steady", str(path)]
    # The flood comes from somewhere else: its client is not to take the processor from those who are measured.
    return subprocess.Popen(["nice", "-n", str(nice), *command] if nice else command, stdout=subprocess.PIPE, cwd=_ROOT)


def _heard(process: subprocess.Popen[bytes], seconds: float) -> Heard:
    out, _ = process.communicate(timeout=seconds + 60)
    if process.returncode:
        raise ServerFailed(f"a client ended with {process.returncode}")
    return msgspec.json.decode(out, type=Heard)


@contextmanager
def _jobs(site: _Site, *, flooded: bool) -> Iterator[None]:
    """Keep so many jobs ahead of the worker, until the block ends; then none."""
    if not flooded:
        yield
        return
    path = site.deployment.home / "jobs.spec"
    path.write_text(f"{site.deployment.valkey.url()}\n{queue_name(site.loud.tenant_id)}\n")
    process = subprocess.Popen(["nice", "-n", "10", sys.executable, "-m", "benchmarks.flooding", str(path)], cwd=_ROOT)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
        asyncio.run(_empty(site))


async def enqueue_ahead(url: str, queue: str) -> None:
    """Enqueue jobs without end, no more than so many at a time."""
    redis = Redis.from_url(url)
    waiting = RingQueue(Ring(redis), queue, share=Share(1.0, 8))
    try:
        while True:
            if await waiting.count("queued") < _JOBS_AHEAD:
                await asyncio.gather(
                    *(waiting.enqueue(_JOB, timeout=60, retries=3, ttl=1, arguments={}) for _ in range(100))
                )
            else:
                await asyncio.sleep(0.05)
    finally:
        await redis.aclose()


async def _empty(site: _Site) -> None:
    redis = Redis.from_url(site.deployment.valkey.url())
    try:
        waiting = RingQueue(Ring(redis), queue_name(site.loud.tenant_id))
        deadline = time.monotonic() + 60
        while await waiting.count("queued") + await waiting.count("active"):
            if time.monotonic() > deadline:
                raise ServerFailed("the worker does not come to the end of the jobs")
            await asyncio.sleep(0.2)
    finally:
        await redis.aclose()


def _phase(
    site: _Site, server: Server, options: Options, flood: Flood, *, limits: bool, flooded: bool, seed: int
) -> Phase:
    folder = site.deployment.home
    with _jobs(site, flooded=flooded and flood in {"jobs", "all"}):
        loud = None
        if flooded and (asks := site.flood(flood)):
            # It is there before the measurement begins, and after it has ended.
            seconds = options.seconds + 3
            plan = Plan(server.port, seconds, asks, connections=options.connections, seed=seed)
            loud = _spawn(plan, folder / "flood.spec", nice=10)
        time.sleep(1.5)
        usual = Plan(server.port, options.seconds, site.usual(), rate=options.rate, seed=seed)
        log_ins = Plan(
            server.port, options.seconds, site.log_ins(range(_QUIET)), rate=options.log_in_rate, seed=seed + 1
        )
        clients = [_spawn(usual, folder / "usual.spec"), _spawn(log_ins, folder / "log-ins.spec")]
        heard, logged = (_heard(client, options.seconds) for client in clients)
        flood_statuses: dict[str, int] = {}
        if loud is not None:
            for counted in _heard(loud, options.seconds).statuses.values():
                for status, count in counted.items():
                    flood_statuses[status] = flood_statuses.get(status, 0) + count
    failed = sum(
        count
        for counted in (*heard.statuses.values(), *logged.statuses.values())
        for status, count in counted.items()
        if not status.startswith("2")
    )
    return Phase(
        flood=flood,
        limits=limits,
        flooded=flooded,
        latencies=heard.latencies.get("usual", []),
        log_ins=logged.latencies.get(_LOG_INS, []),
        failed=failed,
        flood_statuses=flood_statuses,
    )


@contextmanager
def _worker(environment: dict[str, str], folder: Path) -> Iterator[None]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("TENANTRY_")}
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tenantry.cli", "worker"],
            env={**clean, **environment},
            stdout=subprocess.DEVNULL,
            stderr=log,
            cwd=_ROOT,
        )
    try:
        yield
        if process.poll() is not None:
            raise ServerFailed(f"the worker ended: {(folder / 'worker.log').read_text()[-1000:]}")
    finally:
        process.terminate()
        process.wait(60)


def measure_fairness(options: Options, progress: Progress = lambda *_: None) -> Fairness:
    """Prepare, measure, clean up.

    Raises:
        ServerFailed, tenantry.dev.process.ServerError: something did not come up, or has ended.
    """
    with open_deployment(options.home, _QUIET + 1, progress) as deployment, ExitStack() as stack:
        site = _Site(deployment)
        asyncio.run(site.prepare(options))
        environment = deployment.environment(log_level="WARNING")
        limited = environment | {f"TENANTRY_{name.upper()}": value for name, value in options.settings.items()}
        unlimited = environment | {
            "TENANTRY_BULKHEADS": "false",
            "TENANTRY_RATE_LIMITS": "false",
            "TENANTRY_REFUSAL_DELAY": "0",
        }
        ready = f"/api/teams/{site.quiet[0].teams[0]}", site.tokens[0]
        servers: dict[bool, Server] = {}
        for limits, (folder, env) in {True: ("limited", limited), False: ("unlimited", unlimited)}.items():
            home = deployment.home / folder
            home.mkdir(exist_ok=True)
            servers[limits] = stack.enter_context(serve("product", env, folder=home, ready=ready))
        stack.enter_context(_worker(environment, deployment.home))
        for limits, server in servers.items():
            progress("Warming up", int(not limits), 2)
            warm = msgspec.structs.replace(options, seconds=4.0)
            for number in range(2):
                _phase(site, server, warm, "reads", limits=limits, flooded=False, seed=number + 1)
        progress("Warming up", 2, 2)
        phases = []
        steps: list[tuple[Flood, int, bool, bool]] = [
            (flood, number, limits, flooded)
            for flood in options.floods
            for number in range(options.rounds)
            # Every other round backwards, so that none is always first.
            for limits, flooded in _turned(number)
        ]
        for done, (flood, number, limits, flooded) in enumerate(steps):
            progress("Measuring", done, len(steps))
            phases.append(
                _phase(site, servers[limits], options, flood, limits=limits, flooded=flooded, seed=number + 1)
            )
        progress("Measuring", len(steps), len(steps))
    return Fairness(options, phases)


def _turned(number: int) -> list[tuple[bool, bool]]:
    order = [(True, False), (True, True), (False, False), (False, True)]
    return order if number % 2 == 0 else order[::-1]


def main(arguments: list[str]) -> int:
    """Enqueue ahead of a worker: what `_jobs` starts."""
    url, queue = Path(arguments[0]).read_text().split()
    asyncio.run(enqueue_ahead(url, queue))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
