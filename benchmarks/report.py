"""The result for people: a table, a plot, and the JSON beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import msgspec
from rich.table import Table
from rich.text import Text

from benchmarks.jobs import table as jobs_table
from benchmarks.provisioning import table as provisioning_table
from benchmarks.rollouts import table as rollouts_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from benchmarks.measure import Ratio
    from benchmarks.run import Result

mpl.use("Agg")

# After the choice of a backend, which needs no screen.
from matplotlib import pyplot as plt

__all__ = ("FOLDER", "headline", "tables", "write")

FOLDER = Path(__file__).parent / "results"


def headline(result: Result) -> str:
    """What was measured, in one paragraph."""
    machine, options = result.machine, result.options
    return (
        f"{options.tenants:,} organizations; {options.rounds} rounds of {options.seconds} s for each target, "
        f"{options.connections} connections, load by {result.client}; {machine['cores']} cores ({machine['cpu']}), "
        f"Python {result.versions['python']}, PostgreSQL {result.versions['postgres']}. "
        "CPU in µs per request. Ratios are medians of those within a round; 1.00 is as good as the peer."
    )


def tables(result: Result) -> Iterator[RenderableType]:
    """The tables: targets, ratios, profiles."""
    targets = Table(title="Targets", title_justify="left", header_style="bold")
    targets.add_column("Target", no_wrap=True)
    for name in ("req/s", "p50 ms", "p99 ms", "server CPU", "PostgreSQL CPU"):
        targets.add_column(name, justify="right")
    for line in result.targets:
        targets.add_row(
            line.title,
            f"{line.rate:,.0f}",
            f"{line.p50:.2f}",
            f"{line.p99:.2f}",
            f"{line.server_cpu:.0f}",
            f"{line.postgres_cpu:.0f}",
        )
    yield targets
    ratios = Table(title="Ratios", title_justify="left", header_style="bold")
    ratios.add_column("Comparison", no_wrap=True)
    for name in ("req/s", "quartiles", "server CPU", "all CPU", "aim"):
        ratios.add_column(name, justify="right")
    for ratio in result.ratios:
        ratios.add_row(
            ratio.title,
            f"{ratio.rate:.2f}",
            f"{ratio.lower:.2f}-{ratio.upper:.2f}",
            f"{ratio.server_cpu:.2f}",
            f"{ratio.total_cpu:.2f}",
            _aim(ratio),
        )
    yield ratios
    if result.profiles:
        yield _profile(result)
    if result.provisioning is not None:
        yield provisioning_table(result.provisioning)
    if result.rollouts is not None:
        yield rollouts_table(result.rollouts)
    if result.jobs is not None:
        yield jobs_table(result.jobs)


def _aim(ratio: Ratio) -> Text:
    if ratio.aim is None:
        return Text("")
    if ratio.reached:
        return Text(f"{ratio.aim:.2f} reached", style="green")
    return Text(f"{ratio.aim:.2f} missed", style="yellow")


def _profile(result: Result) -> Table:
    table = Table(title="Where a request's time goes", title_justify="left", header_style="bold")
    table.add_column("µs per request", no_wrap=True)
    for profile in result.profiles:
        table.add_column(profile.title, justify="right")
    parts = sorted(
        {part for profile in result.profiles for part in profile.parts},
        key=lambda part: -max(profile.parts.get(part, 0) for profile in result.profiles),
    )
    for part in parts:
        table.add_row(
            part,
            *(
                f"{profile.parts.get(part, 0) * profile.server_cpu:.0f}  {profile.parts.get(part, 0):4.0%}"
                for profile in result.profiles
            ),
        )
    table.add_section()
    for title, field in (
        ("server CPU under load", "server_cpu"),
        ("PostgreSQL CPU under load", "postgres_cpu"),
        ("one connection, by the clock", "alone"),
        ("… of which server CPU", "alone_cpu"),
    ):
        table.add_row(title, *(f"{getattr(profile, field):.0f}      " for profile in result.profiles))
    table.add_row(
        "… and waiting for PostgreSQL", *(f"{max(0.0, p.alone - p.alone_cpu):.0f}      " for p in result.profiles)
    )
    return table


def write(result: Result, folder: Path) -> tuple[Path, Path]:
    """Write the JSON file and the plot, named after the time; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{result.at:%Y%m%dT%H%M%SZ}"
    document, plot = folder / f"{name}.json", folder / f"{name}.png"
    encoded = msgspec.json.Encoder(enc_hook=str).encode(result)
    document.write_bytes(msgspec.json.format(encoded, indent=1))
    _plot(result, plot)
    return document, plot


def _plot(result: Result, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(15, 5.5), width_ratios=(1, 1))
    try:
        ratios = result.ratios[::-1]
        left.barh(
            [ratio.title for ratio in ratios],
            [ratio.rate for ratio in ratios],
            xerr=[
                [ratio.rate - ratio.lower for ratio in ratios],
                [ratio.upper - ratio.rate for ratio in ratios],
            ],
            color=["#9aa5b1" if ratio.aim is None else "#2f855a" if ratio.reached else "#c05621" for ratio in ratios],
            capsize=3,
        )
        for place, ratio in enumerate(ratios):
            if ratio.aim is not None:
                left.plot([ratio.aim, ratio.aim], [place - 0.45, place + 0.45], color="black", linewidth=2)
        left.axvline(1, color="black", linewidth=0.5)
        left.set_title("Requests a second as a share of the peer's\n(median and quartiles; the black mark is the aim)")
        targets = result.targets[::-1]
        names = [target.title for target in targets]
        server = [target.server_cpu for target in targets]
        right.barh(names, server, color="#2b6cb0", label="server")
        right.barh(names, [t.postgres_cpu for t in targets], left=server, color="#90cdf4", label="PostgreSQL")
        right.set_title("CPU time per request, µs")
        right.legend(loc="lower right")
        figure.text(0.01, 0.01, headline(result), fontsize=7, wrap=True)
        figure.tight_layout(rect=(0, 0.04, 1, 1))
        figure.savefig(path, dpi=130)
    finally:
        plt.close(figure)
