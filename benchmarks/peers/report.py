"""The result for people: two tables, a plot, and the JSON beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import msgspec
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from benchmarks.peers.measure import Ratio
    from benchmarks.peers.run import Result

mpl.use("Agg")

# After the choice of a backend, which needs no screen.
from matplotlib import pyplot as plt

__all__ = ("FOLDER", "headline", "tables", "write")

FOLDER = Path(__file__).parents[1] / "results"


def headline(result: Result) -> str:
    """What was measured, in one paragraph."""
    machine, options, peer = result.machine, result.options, result.peer_versions
    return (
        f"{options.tenants:,} tenants on each side; {options.rounds} rounds of {options.seconds} s bursts with "
        f"{options.connections} connections by {result.client}, of {options.creations} new tenants, "
        f"{options.migrations} of migrations; {machine['cores']} cores ({machine['cpu']}), "
        f"Python {result.versions['python']}, PostgreSQL {result.versions['postgres']}; django-tenants "
        f"{peer['django-tenants']}, Django {peer['django']}, psycopg {peer['psycopg']}, gunicorn {peer['gunicorn']}. "
        "Ratios are medians of those within a round; 2.0 is twice as good as the peer."
    )


def shapes(result: Result) -> str:
    """What a tenant's schema holds on each side, and where they differ."""
    product, measured, peer = (result.shapes[name] for name in ("product", "measured", "peer"))
    text = f"A tenant's schema: of the peer {peer}. Tenantry's own has {product}"
    if measured != product:
        text += f"; measured with what it lacks: {measured}"
    if measured != peer:
        text += " (not the same as the peer's)"
    return text + "."


def tables(result: Result) -> Iterator[RenderableType]:
    """The tables: what was measured, and the ratios."""
    measured = Table(title="Measured", title_justify="left", header_style="bold")
    measured.add_column("", no_wrap=True)
    for name in ("median", "p95", "unit", "samples"):
        measured.add_column(name, justify="left" if name == "unit" else "right")
    for line in result.summaries:
        measured.add_row(line.title, _number(line.median), _number(line.p95), line.unit, str(line.samples))
    yield measured
    ratios = Table(title="Times as good as the peer", title_justify="left", header_style="bold")
    ratios.add_column("Comparison", no_wrap=True)
    for name in ("times", "quartiles", "rounds", "against", "aim"):
        ratios.add_column(name, justify="left" if name == "against" else "right")
    for ratio in result.ratios:
        ratios.add_row(
            ratio.title,
            _number(ratio.ratio),
            f"{_number(ratio.lower)}-{_number(ratio.upper)}",
            str(ratio.rounds),
            ratio.against.partition(".")[2],
            _aim(ratio),
        )
    yield ratios


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _aim(ratio: Ratio) -> Text:
    if ratio.aim is None:
        return Text("")
    if ratio.reached:
        return Text(f"{ratio.aim:.0f} reached", style="green")
    return Text(f"{ratio.aim:.0f} missed", style="yellow")


def write(result: Result, folder: Path) -> tuple[Path, Path]:
    """Write the JSON file and the plot, named after the time; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"peers-{result.at:%Y%m%dT%H%M%SZ}"
    document, plot = folder / f"{name}.json", folder / f"{name}.png"
    encoded = msgspec.json.Encoder(enc_hook=str).encode(result)
    document.write_bytes(msgspec.json.format(encoded, indent=1))
    _plot(result, plot)
    return document, plot


def _plot(result: Result, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(12, 5.5))
    try:
        ratios = result.ratios[::-1]
        axes.barh(
            [ratio.title for ratio in ratios],
            [ratio.ratio for ratio in ratios],
            xerr=[
                [ratio.ratio - ratio.lower for ratio in ratios],
                [ratio.upper - ratio.ratio for ratio in ratios],
            ],
            color=["#9aa5b1" if ratio.aim is None else "#2f855a" if ratio.reached else "#c05621" for ratio in ratios],
            capsize=3,
        )
        for place, ratio in enumerate(ratios):
            axes.annotate(_number(ratio.ratio), (ratio.upper, place), (6, -3), textcoords="offset points", fontsize=8)
            if ratio.aim is not None:
                axes.plot([ratio.aim, ratio.aim], [place - 0.45, place + 0.45], color="black", linewidth=2)
        # From three times to hundreds of times: only the order of magnitude is to be read off.
        axes.set_xscale("log")
        axes.axvline(1, color="black", linewidth=0.5)
        axes.set_title("Times as good as the peer (median and quartiles; the black mark is the aim)")
        figure.text(0.01, 0.01, headline(result), fontsize=7, wrap=True)
        figure.tight_layout(rect=(0, 0.06, 1, 1))
        figure.savefig(path, dpi=130)
    finally:
        plt.close(figure)
