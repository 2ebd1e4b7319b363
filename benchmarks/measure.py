"""The measurement: short bursts against each target in turn, round after round, and the ratios within each round.

The machine may be busy with other things. What disturbs one burst disturbs its neighbours, so ratios are taken inside
a round, the order is turned around in every second one, and the median of the rounds is what counts. CPU time per
request is disturbed least of all.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from benchmarks.load import ClientName, run_load
from benchmarks.servers import Server

__all__ = (
    "COMPARISONS",
    "TARGETS",
    "Burst",
    "Comparison",
    "Ratio",
    "Summary",
    "Target",
    "compare",
    "measure",
    "summarize",
)


class Target(msgspec.Struct, frozen=True):
    """A server and one of its routes."""

    name: str
    server: str
    requests: str
    title: str


TARGETS = (
    Target("untenanted.one", "untenanted", "solo.one", "untenanted: GET /api/teams/{id}"),
    Target("product.one", "product", "one", "product: GET /api/teams/{id} (hot read)"),
    Target("raw.one", "raw", "solo.one", "driver alone: GET /api/teams/{id}"),
    Target("product.orm", "product", "orm", "product: the same by the ORM"),
    Target("untenanted.orm", "untenanted", "solo.orm", "untenanted: the same by the ORM"),
    Target("untenanted.list", "untenanted", "solo.list", "untenanted: GET /api/teams"),
    Target("product.list", "product", "list", "product: GET /api/teams"),
    Target("raw.list", "raw", "solo.list", "driver alone: GET /api/teams"),
    Target("product.live", "product", "live", "product: GET /health/live"),
)


class Comparison(msgspec.Struct, frozen=True):
    """Two targets, and how much of the second's rate the first should reach."""

    name: str
    title: str
    of: str
    to: str
    aim: float | None = None


COMPARISONS = (
    Comparison("a.one", "(a) one team, with tenancy / without", "product.one", "untenanted.one", 0.90),
    Comparison("a.list", "(a) list of teams, with tenancy / without", "product.list", "untenanted.list", 0.90),
    Comparison("a.orm", "(a) one team by the ORM, with tenancy / without", "product.orm", "untenanted.orm"),
    Comparison("b.hot", "(b) one team by the hot read / driver alone", "product.one", "raw.one", 0.70),
    Comparison("b.orm", "(b) one team by the ORM / driver alone", "product.orm", "raw.one", 0.50),
    Comparison("b.list", "(b) list of teams by the ORM / driver alone", "product.list", "raw.list"),
    Comparison("c.one", "(c) one team / the framework's ceiling", "product.one", "product.live"),
)


class Burst(msgspec.Struct, frozen=True):
    """One burst: requests a second, latencies in ms, CPU time per request in µs of the server and of PostgreSQL."""

    rate: float
    p50: float
    p99: float
    server_cpu: float
    postgres_cpu: float
    requests: int


class Summary(msgspec.Struct, frozen=True):
    """Medians of a target's bursts; units as in `Burst`."""

    target: str
    title: str
    rate: float
    p50: float
    p99: float
    server_cpu: float
    postgres_cpu: float
    requests: int


class Ratio(msgspec.Struct, frozen=True):
    """Medians, over the rounds, of the ratio within a round.

    `rate` is of requests a second, with its quartiles; the CPU ratios are turned around, so that in each 1.0 means
    "as good as" and less is worse.
    """

    name: str
    title: str
    aim: float | None
    rate: float
    lower: float
    upper: float
    server_cpu: float
    total_cpu: float

    @property
    def reached(self) -> bool | None:
        return None if self.aim is None else self.rate >= self.aim


Rounds = dict[str, list[Burst]]


def measure(
    servers: Mapping[str, Server],
    requests: Mapping[str, Path],
    postgres_cpu: Callable[[], float],
    *,
    client: ClientName,
    rounds: int,
    seconds: int,
    connections: int,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Rounds:
    """Bursts by target, as many as `rounds`.

    Raises:
        LoadFailed: a request was not answered with success.
    """
    found: Rounds = {target.name: [] for target in TARGETS}
    for number in range(rounds):
        for place, target in enumerate(TARGETS if number % 2 == 0 else TARGETS[::-1]):
            progress("Measuring", number * len(TARGETS) + place, rounds * len(TARGETS))
            server = servers[target.server]
            cpu, other = server.cpu_seconds(), postgres_cpu()
            load = run_load(
                client,
                server.port,
                requests[target.requests],
                connections=connections,
                seconds=seconds,
                seed=number * 100 + place,
            )
            cpu, other = server.cpu_seconds() - cpu, postgres_cpu() - other
            found[target.name].append(
                Burst(
                    rate=load.requests / load.seconds,
                    p50=load.p50,
                    p99=load.p99,
                    server_cpu=cpu / load.requests * 1e6,
                    postgres_cpu=other / load.requests * 1e6,
                    requests=load.requests,
                )
            )
    progress("Measuring", rounds * len(TARGETS), rounds * len(TARGETS))
    return found


def summarize(rounds: Rounds) -> list[Summary]:
    """A line for each target."""

    def median(name: str, field: str) -> float:
        return float(statistics.median(getattr(burst, field) for burst in rounds[name]))

    return [
        Summary(
            target=target.name,
            title=target.title,
            rate=median(target.name, "rate"),
            p50=median(target.name, "p50"),
            p99=median(target.name, "p99"),
            server_cpu=median(target.name, "server_cpu"),
            postgres_cpu=median(target.name, "postgres_cpu"),
            requests=sum(burst.requests for burst in rounds[target.name]),
        )
        for target in TARGETS
    ]


def compare(rounds: Rounds) -> list[Ratio]:
    """A line for each comparison."""
    ratios = []
    for comparison in COMPARISONS:
        pairs = list(zip(rounds[comparison.of], rounds[comparison.to], strict=True))
        rates = [one.rate / other.rate for one, other in pairs]
        lower, middle, upper = statistics.quantiles(rates, n=4, method="inclusive") if len(rates) > 1 else rates * 3
        ratios.append(
            Ratio(
                name=comparison.name,
                title=comparison.title,
                aim=comparison.aim,
                rate=middle,
                lower=lower,
                upper=upper,
                server_cpu=statistics.median(other.server_cpu / one.server_cpu for one, other in pairs),
                total_cpu=statistics.median(
                    (other.server_cpu + other.postgres_cpu) / (one.server_cpu + one.postgres_cpu)
                    for one, other in pairs
                ),
            )
        )
    return ratios
