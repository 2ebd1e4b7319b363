"""One run from beginning to end: both sides on one PostgreSQL, in turn, in each of the parts that are asked for."""

from __future__ import annotations

import asyncio
import datetime as dt
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import get_args

import httpx
import msgspec

from benchmarks.deployment import POSTGRES_SETTINGS, TAGS, TEAMS
from benchmarks.load import ClientName, choose_client, run_load
from benchmarks.peers.measure import Part, Ratio, Samples, Summary, compare, summarize
from benchmarks.peers.ours import GRANIAN, Ours, open_ours
from benchmarks.peers.shape import Shape, shape_of
from benchmarks.peers.theirs import GUNICORN, PROJECT, Executor, Peer, open_peer
from benchmarks.run import describe_machine, describe_versions
from benchmarks.servers import Server, ServerFailed
from tenantry.features import TENANT_METADATA

__all__ = ("PARTS", "PYTHON", "Options", "Result", "run")

PARTS: tuple[Part, ...] = get_args(Part)
PYTHON = Path(__file__).parents[2] / ".venv-peers" / "bin" / "python"

_TEAMS_ASKED = 4
"""Different teams of each tenant that are asked for."""

_ROUTES = {"": "/api/checked/teams", ".token": "/api/teams"}
"""The peer's two variants of the read, by what is added to a line's name."""


class Options(msgspec.Struct, frozen=True):
    """What is measured, and how much of it."""

    tenants: int = 200
    rounds: int = 5
    """Of requests and of new tenants."""
    seconds: int = 3
    connections: int = 16
    creations: int = 10
    """New tenants in a round, on each side."""
    migrations: int = 2
    """Rounds of migrations: one takes a minute and a half."""
    parts: tuple[Part, ...] = PARTS
    client: ClientName | None = None
    log_level: str = "INFO"
    python: Path = PYTHON
    """That of the peer's virtual environment."""


class Result(msgspec.Struct, frozen=True):
    """Everything that was found, as it is written to the JSON file."""

    at: dt.datetime
    options: Options
    client: ClientName
    machine: dict[str, str | int | float]
    versions: dict[str, str]
    peer_versions: dict[str, str]
    settings: dict[str, str]
    shapes: dict[str, Shape]
    """A tenant's schema: of the product as it is, of the product as measured, of the peer."""
    summaries: list[Summary]
    ratios: list[Ratio]
    samples: Samples


Progress = Callable[[str, int, int], None]


def run(options: Options, progress: Progress = lambda *_: None) -> Result:
    """Prepare, measure, clean up.

    Raises:
        LoadFailed: a request was not answered with success.
        ServerFailed, ServerError: a server did not come up, or a command failed.
    """
    client = choose_client(options.client)
    samples: Samples = {}
    folder = Path(tempfile.mkdtemp(prefix="tenantry-bench-"))
    # PostgreSQL runs as `nobody` where this program is root, and has to pass through.
    folder.chmod(0o711)
    try:
        with (
            open_ours(folder, options.tenants, options.log_level, progress) as ours,
            open_peer(options.python, ours.deployment.postgres, folder, options.tenants, progress) as peer,
        ):
            shapes = {
                "product": shape_of(TENANT_METADATA),
                "measured": asyncio.run(ours.shape()),
                "peer": asyncio.run(peer.shape()),
            }
            if "requests" in options.parts:
                _measure_requests(ours, peer, client, options, samples, progress)
            if "tenants" in options.parts:
                _measure_tenants(ours, peer, options, samples, progress)
            if "migrations" in options.parts:
                _measure_migrations(ours, peer, options, samples, progress)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Result(
        at=dt.datetime.now(dt.UTC),
        options=options,
        client=client,
        machine=describe_machine(),
        versions=describe_versions(),
        peer_versions=_peer_versions(options.python),
        settings={
            **{f"postgres.{name}": value for name, value in POSTGRES_SETTINGS.items()},
            "granian": " ".join(GRANIAN),
            **{f"gunicorn.{name}": " ".join(value) for name, value in GUNICORN.items()},
            "rows": f"{TEAMS} teams and {TAGS} tags of each tenant",
        },
        shapes=shapes,
        summaries=summarize(samples),
        ratios=compare(samples),
        samples=samples,
    )


def _measure_requests(
    ours: Ours, peer: Peer, client: ClientName, options: Options, samples: Samples, progress: Progress
) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(ours.serve())
        ours.check(server)
        targets: list[tuple[str, Server, Path]] = [("requests.ours", server, ours.requests(_TEAMS_ASKED))]
        files = {added: peer.requests(route, _TEAMS_ASKED) for added, route in _ROUTES.items()}
        for variant in GUNICORN:
            server = stack.enter_context(peer.serve(variant))
            for added, route in _ROUTES.items():
                peer.check(server, route)
                targets.append((f"requests.{variant}{added}", server, files[added]))

        def burst(place: int, seed: int) -> float:
            _, server, requests = targets[place]
            load = run_load(
                client,
                server.port,
                requests,
                connections=options.connections,
                seconds=options.seconds,
                seed=seed,
            )
            return load.requests / load.seconds

        # Each twice, unmeasured: every tenant's part of the catalog is read by every connection, every token seen.
        for number in range(2 * len(targets)):
            progress("Warming up", number, 2 * len(targets))
            burst(number % len(targets), number)
        progress("Warming up", 2 * len(targets), 2 * len(targets))
        step, done, total = "Requests", 0, options.rounds * len(targets)
        for number in range(options.rounds):
            places = range(len(targets))
            for place in places if number % 2 == 0 else reversed(places):
                progress(step, done, total)
                done += 1
                samples.setdefault(targets[place][0], []).append([burst(place, 1000 + number)])
        progress(step, total, total)


def _measure_tenants(ours: Ours, peer: Peer, options: Options, samples: Samples, progress: Progress) -> None:
    """The pool off first: a schema that is ready is taken, whether or not more are made."""
    count = options.creations
    for kind, pool in (("cold", 0), ("warm", count)):
        with (
            ours.serve(warm_pool_size=pool) as server,
            ours.provision(pool=pool),
            peer.making(),
            httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as http,
        ):
            # One of each, unmeasured: the provisioner is up, and everything is imported.
            ours.make_tenant(http, f"{kind}-first")
            peer.make_tenant(f"{kind}-first")
            step = f"New tenants, pool {'on' if pool else 'off'}"
            for number in range(options.rounds):
                progress(step, number, options.rounds)
                slugs = [f"{kind}-{number}-{place}" for place in range(count)]
                # Filled before it is measured, and again before the peer's turn: what a pool costs is paid then, and
                # not by the peer.
                ours.wait_for_pool(pool)
                mine = [ours.make_tenant(http, slug) * 1000 for slug in slugs]
                ours.wait_for_pool(pool)
                others = [peer.make_tenant(slug) * 1000 for slug in slugs]
                samples.setdefault(f"tenants.{kind}", []).append(mine)
                samples.setdefault(f"tenants.peer.{kind}", []).append(others)
            progress(step, options.rounds, options.rounds)


def _measure_migrations(ours: Ours, peer: Peer, options: Options, samples: Samples, progress: Progress) -> None:
    executors: tuple[Executor, ...] = get_args(Executor)
    expected = asyncio.run(ours.count_tenants()), asyncio.run(peer.count_tenants())
    revision = 0

    def roll_out(side: Ours | Peer, name: str, migrate: Callable[[], float]) -> float:
        nonlocal revision
        revision += 1
        side.add_revision(revision)
        seconds = migrate()
        found = asyncio.run(side.count_columns(revision))
        if found != expected[side is peer]:
            raise ServerFailed(f"{name} migrated {found} of {expected[side is peer]} tenants")
        return seconds

    step, done, total = "Migrations", 0, options.migrations * 2 * (1 + len(executors))

    def note(name: str, seconds: float) -> None:
        nonlocal done
        samples.setdefault(name, []).append([seconds])
        done += 1
        progress(step, done, total)

    progress(step, 0, total)
    for number in range(options.migrations):
        turns: list[tuple[Ours | Peer, str, Callable[[], float]]] = [(ours, "ours", ours.migrate)]
        turns += [(peer, name, partial(peer.migrate, name)) for name in executors]
        for side, name, migrate in turns if number % 2 == 0 else turns[::-1]:
            note(f"rollout.{name}", roll_out(side, name, migrate))
            note(f"noop.{name}", migrate())


def _peer_versions(python: Path) -> dict[str, str]:
    """What is installed of the peer's direct requirements."""
    names = [line.partition("=")[0].partition("[")[0] for line in _direct_requirements()]
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    ran = subprocess.run([str(python), "-c", code, *names], capture_output=True, text=True, check=True)
    return {"python": platform.python_version(), **dict(zip(names, ran.stdout.split(), strict=True))}


def _direct_requirements() -> list[str]:
    lines = (PROJECT / "requirements.in").read_text().splitlines()
    return [line.replace(">", "=").replace("<", "=") for line in lines if line and not line.startswith("#")]
