"""`python -m benchmarks.fairness`: what fifty organizations notice of one that floods. See `--help`."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import matplotlib as mpl
import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.flooding import AIM, FLOODS, Fairness, Flood, Options, measure_fairness, percentile
from benchmarks.progress import show_progress
from benchmarks.report import FOLDER
from benchmarks.run import describe_machine, describe_versions
from benchmarks.servers import ServerFailed
from tenantry.dev.process import ServerError
from tenantry.kernel.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

mpl.use("Agg")

# After the choice of a backend, which needs no screen.
from matplotlib import pyplot as plt

__all__ = ("main", "table", "write")


class Line(msgspec.Struct, frozen=True):
    """One kind of flood, with limits or without; p99 in milliseconds."""

    flood: Flood
    limits: bool
    quiet: float
    flooded: float
    ratio: float
    smallest: float
    largest: float
    log_ins_quiet: float
    log_ins_flooded: float
    failed: int
    flood_statuses: dict[str, int]


def lines(result: Fairness) -> Iterator[Line]:
    """What is shown of it."""
    for flood in result.options.floods:
        for limits in (True, False):
            loud = [p for p in result.phases if (p.flood, p.limits, p.flooded) == (flood, limits, True)]
            statuses: dict[str, int] = {}
            for phase in loud:
                for status, count in phase.flood_statuses.items():
                    statuses[status] = statuses.get(status, 0) + count
            smallest, largest = result.spread(flood, limits=limits)
            yield Line(
                flood=flood,
                limits=limits,
                quiet=result.p99(flood, limits=limits, flooded=False),
                flooded=result.p99(flood, limits=limits, flooded=True),
                ratio=result.ratio(flood, limits=limits),
                smallest=smallest,
                largest=largest,
                log_ins_quiet=result.p99(flood, limits=limits, flooded=False, log_ins=True),
                log_ins_flooded=result.p99(flood, limits=limits, flooded=True, log_ins=True),
                failed=sum(phase.failed for phase in loud),
                flood_statuses=statuses,
            )


def table(result: Fairness) -> Table:
    """p99 of the fifty without and with the flood, and the ratio of the two."""
    options = result.options
    found = Table(
        title=f"Fifty organizations, {options.rate:g} requests a second, beside a flood over {options.connections} "
        f"connections; {options.rounds} rounds of {options.seconds:g} s",
        title_justify="left",
        header_style="bold",
    )
    found.add_column("Flood of", no_wrap=True)
    found.add_column("limits", no_wrap=True)
    for name in ("p99 ms quiet", "flooded", "ratio", "of rounds", "log-in p95 quiet", "flooded", "failed", "flood got"):
        found.add_column(name, justify="right")
    for line in lines(result):
        style = "green" if line.ratio <= AIM else "yellow"
        found.add_row(
            line.flood if line.limits else "",
            "on" if line.limits else "off",
            f"{line.quiet:.1f}",
            f"{line.flooded:.1f}",
            Text(f"{line.ratio:.2f}", style=style if line.limits else ""),
            f"{line.smallest:.2f}-{line.largest:.2f}",
            f"{line.log_ins_quiet:.0f}",
            f"{line.log_ins_flooded:.0f}",
            str(line.failed),
            " ".join(f"{status}:{count}" for status, count in sorted(line.flood_statuses.items())),
        )
        if not line.limits:
            found.add_section()
    return found


def write(result: Fairness, folder: Path) -> tuple[Path, Path]:
    """Write the JSON file and the plot, named after the time; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}-fairness"
    document, plot = folder / f"{name}.json", folder / f"{name}.png"
    whole: dict[str, Any] = {
        "aim": AIM,
        "machine": describe_machine(),
        "versions": describe_versions(),
        "lines": list(lines(result)),
        "result": result,
    }
    document.write_bytes(msgspec.json.format(msgspec.json.Encoder(enc_hook=str).encode(whole), indent=1))
    _plot(result, plot)
    return document, plot


def _plot(result: Fairness, path: Path) -> None:
    floods = result.options.floods
    figure, axes = plt.subplots(1, len(floods), figsize=(4.5 * len(floods), 4.5), sharey=True, squeeze=False)
    try:
        for axis, flood in zip(axes[0], floods, strict=True):
            for limits, flooded, colour, label in (
                (True, False, "#9aa5b1", "quiet"),
                (True, True, "#2f855a", "flooded, limits on"),
                (False, True, "#c05621", "flooded, limits off"),
            ):
                found = sorted(
                    latency
                    for phase in result.phases
                    if (phase.flood, phase.limits, phase.flooded) == (flood, limits, flooded)
                    for latency in phase.latencies
                )
                shares = [number / 1000 for number in range(1000)]
                axis.plot([percentile(found, share) for share in shares], shares, color=colour, label=label)
            axis.axhline(0.99, color="black", linewidth=0.5)
            axis.set_xscale("log")
            axis.set_title(f"flood of {flood}: p99 x {result.ratio(flood, limits=True):.2f}")
            axis.set_xlabel("latency of the fifty, ms")
        axes[0][0].set_ylabel("share of requests")
        axes[0][0].legend(loc="lower right")
        figure.tight_layout()
        figure.savefig(path, dpi=120)
    finally:
        plt.close(figure)


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--setting")
    return name, value


@click.command(epilog="Example: python -m benchmarks.fairness --flood reads --flood log-ins --rounds 2")
@click.option("--flood", type=click.Choice(get_args(Flood)), multiple=True, help="What floods.  [default: each]")
@click.option("--rounds", type=click.IntRange(min=1), default=4, show_default=True)
@click.option("--seconds", type=click.FloatRange(min=1), default=8.0, show_default=True, help="Of a phase.")
@click.option("--rate", type=click.FloatRange(min=1), default=60.0, show_default=True, help="Of the fifty together.")
@click.option("--connections", type=click.IntRange(min=1), default=64, show_default=True, help="Of the flood.")
@click.option(
    "--request-rate",
    type=click.FloatRange(min=0),
    default=100.0,
    show_default=True,
    help="A second, of each plan; 0: any.",
)
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), help="Keep the servers' data here.")
@click.option("--setting", multiple=True, metavar="NAME=VALUE", help="A setting of the process with limits.")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON instead of the table.")
@click.option("--quiet", is_flag=True, help="No progress.")
def main(
    flood: tuple[Flood, ...],
    rounds: int,
    seconds: float,
    rate: float,
    connections: int,
    request_rate: float,
    home: Path | None,
    setting: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure what fifty organizations at work notice of one that floods, with limits and without.

    Starts PostgreSQL, Valkey, a worker and two processes of the API. Writes a JSON file and a plot to
    benchmarks/results. An aim that is missed is shown as such and is no error.
    """
    options = Options(
        floods=tuple(flood) or FLOODS,
        rounds=rounds,
        seconds=seconds,
        rate=rate,
        connections=connections,
        request_rate=request_rate or None,
        home=home,
        settings=dict(_pair(text) for text in setting),
    )
    try:
        with show_progress(quiet=quiet) as tell:
            result = measure_fairness(options, tell)
    except (ServerFailed, ServerError, SettingsError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    document, plot = write(result, FOLDER)
    if as_json:
        sys.stdout.write(msgspec.json.format(document.read_bytes()).decode() + "\n")
        return
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(table(result))
    console.print(f"Written to {document} and {plot}", soft_wrap=True)


if __name__ == "__main__":
    main()
