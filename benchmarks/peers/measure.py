"""What is measured beside the peer, and the ratios: pure computations on samples.

Samples of one round were taken within seconds of each other. A ratio is taken inside a round, of the round's medians;
the median of the rounds is what counts.
"""

from __future__ import annotations

import statistics
from typing import Literal

import msgspec

__all__ = ("COMPARISONS", "LINES", "Comparison", "Line", "Part", "Ratio", "Samples", "Summary", "compare", "summarize")

Part = Literal["requests", "tenants", "migrations"]
Samples = dict[str, list[list[float]]]
"""By line: of each round, what was measured in it."""


class Line(msgspec.Struct, frozen=True):
    """One thing that is measured, on one side."""

    name: str
    title: str
    unit: Literal["req/s", "ms", "s"]


LINES = (
    Line("requests.ours", "Tenantry: GET one team, two processes", "req/s"),
    Line("requests.sync", "peer: the same, sync x 2", "req/s"),
    Line("requests.sync.token", "peer: sync x 2, neither session nor permission looked at", "req/s"),
    Line("requests.gthread", "peer: the same, gthread 2 x 4", "req/s"),
    Line("requests.gthread.token", "peer: gthread 2 x 4, neither session nor permission", "req/s"),
    Line("tenants.warm", "Tenantry: POST /platform/tenants, warm pool", "ms"),
    Line("tenants.cold", "Tenantry: the same, pool off", "ms"),
    Line("tenants.peer.warm", "peer: Client.save(), in turn with the warm pool", "ms"),
    Line("tenants.peer.cold", "peer: Client.save(), in turn with the pool off", "ms"),
    Line("rollout.ours", "Tenantry: a column and an index in each tenant", "s"),
    Line("rollout.standard", "peer: the same, standard executor", "s"),
    Line("rollout.multiprocessing", "peer: the same, two processes", "s"),
    Line("noop.ours", "Tenantry: nothing to migrate", "s"),
    Line("noop.standard", "peer: the same, standard executor", "s"),
    Line("noop.multiprocessing", "peer: the same, two processes", "s"),
)


class Comparison(msgspec.Struct, frozen=True):
    """Ours beside one or several lines of the peer's, of which its best counts; the aim is in times as good."""

    name: str
    title: str
    ours: str
    theirs: tuple[str, ...]
    aim: float | None = None


COMPARISONS = (
    Comparison("a", "(a) requests / its best", "requests.ours", ("requests.sync", "requests.gthread"), 3),
    Comparison("a.sync", "(a) requests / sync", "requests.ours", ("requests.sync",)),
    Comparison("a.gthread", "(a) requests / gthread", "requests.ours", ("requests.gthread",)),
    Comparison(
        "a.token",
        "(a) requests / its best with the token alone",
        "requests.ours",
        ("requests.sync.token", "requests.gthread.token"),
    ),
    Comparison("b.warm", "(b) a tenant, warm", "tenants.warm", ("tenants.peer.warm",), 30),
    Comparison("b.cold", "(b) a tenant, cold", "tenants.cold", ("tenants.peer.cold",)),
    Comparison("c", "(c) rollout / its best", "rollout.ours", ("rollout.standard", "rollout.multiprocessing"), 10),
    Comparison("c.standard", "(c) rollout / standard", "rollout.ours", ("rollout.standard",)),
    Comparison("c.processes", "(c) rollout / two processes", "rollout.ours", ("rollout.multiprocessing",)),
    Comparison("d", "(d) no-op / its best", "noop.ours", ("noop.standard", "noop.multiprocessing"), 100),
    Comparison("d.standard", "(d) no-op / standard", "noop.ours", ("noop.standard",)),
    Comparison("d.processes", "(d) no-op / two processes", "noop.ours", ("noop.multiprocessing",)),
)

_UNITS = {line.name: line.unit for line in LINES}


class Summary(msgspec.Struct, frozen=True):
    """A line's samples in short: of requests a second the 95th percentile is the slow end, as of durations."""

    line: str
    title: str
    unit: str
    median: float
    p95: float
    samples: int


class Ratio(msgspec.Struct, frozen=True):
    """Times as good as the peer, with its quartiles over the rounds; 1 is as good."""

    name: str
    title: str
    against: str
    """The peer's line that counted."""
    aim: float | None
    ratio: float
    lower: float
    upper: float
    rounds: int

    @property
    def reached(self) -> bool | None:
        return None if self.aim is None else self.ratio >= self.aim


def summarize(samples: Samples) -> list[Summary]:
    """A line for each that was measured."""
    found = []
    for line in LINES:
        flat = sorted(value for values in samples.get(line.name, ()) for value in values)
        if not flat:
            continue
        slow = flat[::-1] if line.unit == "req/s" else flat
        found.append(
            Summary(
                line=line.name,
                title=line.title,
                unit=line.unit,
                median=statistics.median(flat),
                p95=slow[min(len(slow) - 1, int(len(slow) * 0.95))],
                samples=len(flat),
            )
        )
    return found


def compare(samples: Samples) -> list[Ratio]:
    """A line for each comparison whose two sides were measured.

    Raises:
        ValueError: the sides have different numbers of rounds.
    """
    ratios = []
    for comparison in COMPARISONS:
        ours = samples.get(comparison.ours)
        measured = [name for name in comparison.theirs if samples.get(name)]
        if not ours or not measured:
            continue
        higher = _UNITS[comparison.ours] == "req/s"
        # Of the whole run, not of each round: the best of two noisy figures is better than either configuration.
        best = (max if higher else min)(measured, key=lambda name: statistics.median(_medians(samples[name])))
        found = []
        for mine, others in zip(_medians(ours), _medians(samples[best]), strict=True):
            found.append(mine / others if higher else others / mine)
        lower, middle, upper = statistics.quantiles(found, n=4, method="inclusive") if len(found) > 1 else found * 3
        ratios.append(
            Ratio(
                name=comparison.name,
                title=comparison.title,
                against=best,
                aim=comparison.aim,
                ratio=middle,
                lower=lower,
                upper=upper,
                rounds=len(found),
            )
        )
    return ratios


def _medians(rounds: list[list[float]]) -> list[float]:
    return [statistics.median(values) for values in rounds]
