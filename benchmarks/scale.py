"""Thousands of organizations: what a random one's read takes, and what PostgreSQL's backends remember of them all.

Two servers take turns: one whose connections are replaced as the settings say, one that keeps its own for ever. First
an hour's worth of requests of random organizations, in slices, after each of which the backends' memory is read; then
bursts over ten organizations and over all of them, whose ratio is what thousands cost a request.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import msgspec
import psutil
import rich_click as click
from rich.console import Console
from rich.table import Table

from benchmarks.deployment import DATABASE, Deployment, open_deployment
from benchmarks.load import ClientName, choose_client, run_load, write_requests
from benchmarks.progress import show_progress
from benchmarks.servers import Server, cpu_seconds, serve
from tenantry.tenancy.models import schema_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from benchmarks.run import Progress

__all__ = ("Footprint", "Round", "Scale", "Slice", "measure_scale", "table")

AIM = 1.2
"""A random organization's p50, as a multiple of the p50 among ten."""

_POSTGRES = {"fsync": "off"}
"""Nothing but reads is measured, and a checkpoint after 3,000 organizations were made synchronizes 364,000 files."""

_FEW = 10
_FOOTPRINT = 50
"""Organizations of which it is seen what a backend remembers of each."""

SERVERS = {"replaced": "connections replaced", "kept": "connections kept for ever"}
_NEVER = {"TENANTRY_DATABASE_CONNECTION_AGE": "86400", "TENANTRY_DATABASE_CONNECTION_TENANTS": "100000"}

# What a request for one team reads: the caller with their rights, the team, its tags.
_READ = ("user_session", "user_account", "user_role", "role", "role_permission", "team", "team_tag", "tag")


class Slice(msgspec.Struct, frozen=True):
    """The state of a server after a slice of the hour; memory in MiB, of all of its backends and of the largest."""

    requests: int
    backends: int
    memory: float
    largest: float


class Round(msgspec.Struct, frozen=True):
    """p50 and p99 in ms, and CPU of server and PostgreSQL in µs per request: among ten organizations, and among all."""

    few: float
    few_p99: float
    few_cpu: float
    many: float
    many_p99: float
    many_cpu: float


class Footprint(msgspec.Struct, frozen=True):
    """KiB that a backend remembers of an organization: after the read that is measured, and after one of each table."""

    read: float
    tables: float
    count: int
    """How many tables there are."""


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, by server."""

    at: dt.datetime
    tenants: int
    requests: int
    """Of the hour, for each server."""
    age: float
    """Seconds after which connections were replaced: as often in the compressed hour as in one of sixty minutes."""
    footprint: Footprint
    hour: dict[str, list[Slice]]
    rounds: dict[str, list[Round]]
    closed: dict[str, int]
    """Connections that the first server replaced, by reason."""
    first_visits: dict[str, int]
    """Requests on a connection that had not served their organization."""

    def ratio(self, name: str) -> float:
        """A random organization's p50 as a multiple of that among ten; the median of the rounds."""
        return statistics.median(one.many / one.few for one in self.rounds[name])

    def cpu_ratio(self, name: str) -> float:
        """The same of the CPU that a request takes, which a busy machine disturbs least."""
        return statistics.median(one.many_cpu / one.few_cpu for one in self.rounds[name])


def measure_scale(
    deployment: Deployment,
    *,
    requests: int = 72_000,
    slices: int = 12,
    rounds: int = 7,
    seconds: int = 5,
    connections: int = 4,
    client: ClientName | None = None,
    progress: Progress = lambda *_: None,
) -> Scale:
    """Measure on a deployment, whose rows stay as they are.

    Raises:
        LoadFailed: a request was not answered with success.
        ServerFailed: a server did not come up.
    """
    chosen = choose_client(client)
    footprint = asyncio.run(_footprint(deployment))
    callers = deployment.manifest.callers
    tokens = deployment.tokens(callers, ttl=24 * 3600)
    targets: list[tuple[str, str | None]] = [
        (f"/api/teams/{caller.teams[number % len(caller.teams)]}", token)
        for number, (caller, token) in enumerate(zip(callers, tokens, strict=True))
    ]
    few = write_requests(deployment.home / "few.requests", targets[:_FEW], host="localhost")
    many = write_requests(deployment.home / "many.requests", targets, host="localhost")
    for path in (few, many):
        path.chmod(0o600)
    with ExitStack() as stack:
        # How many fit into a second is not known beforehand: the first slice, of the one that is kept, says so.
        kept = stack.enter_context(_serve(deployment, "kept", _NEVER, targets[0]))
        run_load(chosen, kept.port, many, connections=connections, seconds=2, seed=1)
        rate = run_load(chosen, kept.port, many, connections=connections, seconds=seconds, seed=2)
        slice_seconds = max(1, round(requests / slices / (rate.requests / rate.seconds)))
        age = max(10.0, slice_seconds * slices / 2)
        servers = {
            "replaced": stack.enter_context(
                _serve(deployment, "replaced", {"TENANTRY_DATABASE_CONNECTION_AGE": f"{age:g}"}, targets[0])
            ),
            "kept": kept,
        }
        hour: dict[str, list[Slice]] = {name: [] for name in servers}
        for number in range(slices):
            for name in sorted(servers, reverse=bool(number % 2)):
                progress("An hour of random organizations", number * 2 + len(hour), slices * 2)
                load = run_load(
                    chosen, servers[name].port, many, connections=connections, seconds=slice_seconds, seed=number + 3
                )
                before = hour[name][-1].requests if hour[name] else 0
                hour[name].append(_slice(servers[name], deployment, before + load.requests))
        progress("An hour of random organizations", slices * 2, slices * 2)
        found: dict[str, list[Round]] = {name: [] for name in servers}
        for number in range(rounds):
            for name in sorted(servers, reverse=bool(number % 2)):
                progress("Ten beside all", number * 2, rounds * 2)
                bursts = {}
                for path in [few, many] if number % 4 < 2 else [many, few]:
                    cpu = servers[name].cpu_seconds() + cpu_seconds(deployment.postgres.pid)
                    load = run_load(
                        chosen, servers[name].port, path, connections=connections, seconds=seconds, seed=number
                    )
                    cpu = servers[name].cpu_seconds() + cpu_seconds(deployment.postgres.pid) - cpu
                    bursts[path] = load.p50, load.p99, cpu / load.requests * 1e6
                found[name].append(Round(*bursts[few], *bursts[many]))
        progress("Ten beside all", rounds * 2, rounds * 2)
        metrics = {name: server.get("/metrics").text for name, server in servers.items()}
    return Scale(
        at=dt.datetime.now(dt.UTC),
        tenants=len(callers),
        requests=hour["replaced"][-1].requests,
        age=age,
        footprint=footprint,
        hour=hour,
        rounds=found,
        closed=_closed(metrics["replaced"]),
        first_visits={name: _count(said, "tenantry_database_first_visits_total") for name, said in metrics.items()},
    )


def _serve(
    deployment: Deployment, name: str, settings: Mapping[str, str], target: tuple[str, str | None]
) -> AbstractContextManager[Server]:
    environment = deployment.environment(log_level="WARNING") | dict(settings)
    folder = deployment.home / name
    folder.mkdir(exist_ok=True)
    return serve("product", environment, folder=folder, ready=target)


def _slice(server: Server, deployment: Deployment, requests: int) -> Slice:
    """Read the memory of the server's backends: what is theirs alone, without what all share."""
    ports = {
        link.laddr.port
        for process in psutil.Process(server.pid).children(recursive=True)
        for link in process.net_connections("tcp")
        if link.raddr and link.raddr.port == deployment.postgres.port
    }
    sizes = [_private(pid) for pid in asyncio.run(_backends(deployment, ports))]
    return Slice(requests, len(sizes), sum(sizes), max(sizes))


async def _backends(deployment: Deployment, ports: set[int]) -> list[int]:
    connection = await asyncpg.connect(deployment.postgres.url(DATABASE))
    try:
        rows = await connection.fetch(
            "SELECT pid FROM pg_stat_activity WHERE client_port = ANY($1::int[])", list(ports)
        )
    finally:
        await connection.close()
    return [row["pid"] for row in rows]


def _private(pid: int) -> float:
    """MiB that are the process' own (RssAnon of proc(5))."""
    found = re.search(r"^RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found is not None else 0.0


async def _footprint(deployment: Deployment) -> Footprint:
    """Have one backend meet organizations, table by table, and see by how much its memory contexts grow."""
    callers = deployment.manifest.callers
    taken: dict[str, float] = {}
    count = 0
    for kind in ("read", "tables"):
        connection = await asyncpg.connect(deployment.postgres.url(DATABASE))
        try:
            chosen = callers[: min(_FOOTPRINT, len(callers))]
            used = []
            for place, caller in enumerate(chosen):
                schema = schema_name(caller.tenant_id)
                names = [
                    row["relname"]
                    for row in await connection.fetch(
                        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = $1::text::regnamespace"
                        " AND ($2 OR relname = ANY($3))",
                        schema,
                        kind == "tables",
                        list(_READ),
                    )
                ]
                count = max(count, len(names))
                for name in names:
                    await connection.execute(f'SELECT 1 FROM "{schema}"."{name}" LIMIT 1')
                if place in {0, len(chosen) - 1}:
                    used.append(
                        await connection.fetchval("SELECT sum(used_bytes)::bigint FROM pg_backend_memory_contexts")
                    )
            taken[kind] = (used[-1] - used[0]) / max(1, len(chosen) - 1) / 1024
        finally:
            await connection.close()
    return Footprint(read=taken["read"], tables=taken["tables"], count=count)


def _closed(metrics: str) -> dict[str, int]:
    found = re.findall(r'^tenantry_database_connections_closed_total\{reason="(\w+)"\} ([\d.]+)', metrics, re.MULTILINE)
    return {reason: round(float(count)) for reason, count in found}


def _count(metrics: str, name: str) -> int:
    found = re.search(rf"^{name} ([\d.e+]+)", metrics, re.MULTILINE)
    return round(float(found[1])) if found is not None else 0


def table(found: Scale) -> Table:
    """The result for people."""
    shown = Table(
        title=f"{found.tenants:,} organizations, {found.requests:,} requests of random ones: an hour's at "
        f"{found.requests / 3600:.3g} a second",
        title_justify="left",
        header_style="bold",
    )
    shown.add_column("")
    for title in SERVERS.values():
        shown.add_column(title, justify="right")

    def row(title: str, values: Mapping[str, str]) -> None:
        shown.add_row(title, *(values[name] for name in SERVERS))

    last = {name: found.hour[name][-1] for name in SERVERS}
    row("backends", {name: str(last[name].backends) for name in SERVERS})
    row("memory of all of them, MiB", {name: f"{last[name].memory:,.0f}" for name in SERVERS})
    row("… of the largest", {name: f"{last[name].largest:,.0f}" for name in SERVERS})
    row("… at any time", {name: f"{max(one.largest for one in found.hour[name]):,.0f}" for name in SERVERS})
    shown.add_section()
    row(
        f"p50 of a read among {_FEW}, ms",
        {name: f"{statistics.median(one.few for one in found.rounds[name]):.2f}" for name in SERVERS},
    )
    row(
        "… among all of them",
        {name: f"{statistics.median(one.many for one in found.rounds[name]):.2f}" for name in SERVERS},
    )
    row("… as a multiple; aim 1.2", {name: _verdict(found.ratio(name)) for name in SERVERS})
    row(
        f"CPU of a read among {_FEW}, µs",
        {name: f"{statistics.median(one.few_cpu for one in found.rounds[name]):.0f}" for name in SERVERS},
    )
    row(
        "… among all of them",
        {name: f"{statistics.median(one.many_cpu for one in found.rounds[name]):.0f}" for name in SERVERS},
    )
    row("… as a multiple", {name: f"{found.cpu_ratio(name):.2f}" for name in SERVERS})
    row(
        "p99 among all of them, ms",
        {name: f"{statistics.median(one.many_p99 for one in found.rounds[name]):.2f}" for name in SERVERS},
    )
    row("requests on a connection that did not know them", {name: f"{found.first_visits[name]:,}" for name in SERVERS})
    shown.caption = (
        f"A backend remembers {found.footprint.read:.0f} KiB of each organization that it has served this read, "
        f"{found.footprint.tables:.0f} KiB of one whose {found.footprint.count} tables it has all met. Replaced: "
        + (", ".join(f"{count} ({reason})" for reason, count in sorted(found.closed.items())) or "none")
    )
    return shown


def _verdict(ratio: float) -> str:
    return f"[{'green' if ratio <= AIM else 'yellow'}]{ratio:.2f} {'reached' if ratio <= AIM else 'missed'}[/]"


def write(found: Scale, folder: Path) -> tuple[Path, Path]:
    """Write the JSON file and the plot, named after the time; return their paths."""
    # Only where a result is to be shown: it takes a second to import.
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    document, plot = (folder / f"scale-{found.at:%Y%m%dT%H%M%SZ}{suffix}" for suffix in (".json", ".png"))
    document.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5))
    try:
        for (name, title), colour in zip(SERVERS.items(), ("#2f855a", "#c05621"), strict=True):
            slices = found.hour[name]
            taken = [one.requests for one in slices]
            left.plot(taken, [one.memory for one in slices], color=colour, label=f"{title}: all backends")
            left.plot(taken, [one.largest for one in slices], color=colour, linestyle="--", label="… the largest")
            right.plot([one.many / one.few for one in found.rounds[name]], color=colour, marker="o", label=title)
        left.set_title(f"Memory of backends, MiB, by requests of {found.tenants:,} random organizations")
        left.set_ylim(bottom=0)
        left.legend()
        right.axhline(AIM, color="black", linewidth=1)
        right.set_ylim(bottom=0)
        right.set_title(f"p50 of a read among all, as a multiple of that among {_FEW}, by round")
        right.legend()
        figure.tight_layout()
        figure.savefig(plot, dpi=130)
    finally:
        plt.close(figure)
    return document, plot


@click.command(epilog="Example: python -m benchmarks.scale --tenants 500 --requests 10000 --home .bench-500")
@click.option("--tenants", type=click.IntRange(min=_FEW), default=5000, show_default=True, help="How many there are.")
@click.option("--requests", type=click.IntRange(min=100), default=72_000, show_default=True, help="Of the hour.")
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True, help="Of ten beside all.")
@click.option("--seconds", type=click.IntRange(min=1), default=5, show_default=True, help="Of a burst.")
@click.option("--connections", type=click.IntRange(min=1), default=4, show_default=True, help="Of the load.")
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), help="As for `python -m benchmarks`.")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON instead of the table.")
@click.option("--quiet", is_flag=True, help="No progress.")
def main(
    tenants: int,
    requests: int,
    rounds: int,
    seconds: int,
    connections: int,
    home: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure reads and memory with thousands of organizations in one database.

    Making 5,000 takes ten minutes and 15 GB of disk: give `--home` to make them once.
    """
    with show_progress(quiet=quiet) as tell, open_deployment(home, tenants, tell, settings=_POSTGRES) as deployment:
        found = measure_scale(
            deployment, requests=requests, rounds=rounds, seconds=seconds, connections=connections, progress=tell
        )
    document, plot = write(found, Path(__file__).parent / "results")
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")
        return
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table(found))
    console.print(f"Written to {document} and {plot}", soft_wrap=True)


if __name__ == "__main__":
    main()
