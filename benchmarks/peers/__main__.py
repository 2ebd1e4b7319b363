"""`python -m benchmarks.peers`: see `--help`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import rich_click as click
from rich.console import Console

from benchmarks.load import LoadFailed
from benchmarks.peers.run import PARTS, PYTHON, Options, run
from benchmarks.progress import show_progress
from benchmarks.servers import ServerFailed
from tenantry.dev.process import ServerError
from tenantry.kernel.settings import SettingsError

if TYPE_CHECKING:
    from benchmarks.load import ClientName
    from benchmarks.peers.measure import Part


@click.command(epilog="Example: python -m benchmarks.peers --quick --part requests")
@click.option("--quick", is_flag=True, help="20 tenants and few rounds: a look, not a result.")
@click.option("--tenants", type=click.IntRange(min=2), help="How many, on each side.  [default: 200]")
@click.option("--rounds", type=click.IntRange(min=1), help="Of requests and of new tenants.  [default: 5]")
@click.option("--seconds", type=click.IntRange(min=1), help="Seconds of a burst; a round has five.  [default: 3]")
@click.option("--creations", type=click.IntRange(min=1), help="New tenants of a round.  [default: 10]")
@click.option("--migrations", type=click.IntRange(min=1), help="Rounds of migrations.  [default: 2]")
@click.option("--connections", type=click.IntRange(min=1), default=16, show_default=True, help="Of the load.")
@click.option("--client", type=click.Choice(["wrk", "python"]), help="What makes the load.  [default: wrk if there]")
@click.option("--log-level", default="INFO", show_default=True, help="Of our servers; at INFO they log each request.")
@click.option("--part", multiple=True, type=click.Choice(PARTS), help="Only this; may be given again.  [default: all]")
@click.option(
    "--python",
    type=click.Path(path_type=Path, dir_okay=False),
    default=PYTHON,
    help="The interpreter that has the peer's requirements.  [default: that of .venv-peers]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the JSON instead of the tables.")
@click.option("--quiet", is_flag=True, help="No progress.")
def main(
    quick: bool,
    tenants: int | None,
    rounds: int | None,
    seconds: int | None,
    creations: int | None,
    migrations: int | None,
    connections: int,
    client: ClientName | None,
    log_level: str,
    part: tuple[Part, ...],
    python: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure the product beside a django-tenants application of the same shape.

    Starts PostgreSQL, Valkey and both sides, fills them, measures them in turn, and cleans up. Writes a JSON file and
    a plot to benchmarks/results. An aim that is missed is shown as such and is no error.
    """
    options = Options(
        tenants=tenants or (20 if quick else 200),
        rounds=rounds or (2 if quick else 5),
        seconds=seconds or (1 if quick else 3),
        creations=creations or (3 if quick else 10),
        migrations=migrations or (1 if quick else 2),
        connections=connections,
        parts=tuple(name for name in PARTS if not part or name in part),
        client=client,
        log_level=log_level,
        python=python,
    )
    # A dozen processes and a database would stay behind: ended as by an exception, it stops what it has started.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        with show_progress(quiet=quiet) as tell:
            result = run(options, tell)
    except (LoadFailed, ServerFailed, ServerError, SettingsError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    # Only now, and only where a result is to be shown: matplotlib takes a second to import.
    from benchmarks.peers import report

    document, plot = report.write(result, report.FOLDER)
    if as_json:
        sys.stdout.write(msgspec.json.format(document.read_bytes()).decode() + "\n")
        return
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(report.headline(result))
    console.print(report.shapes(result))
    for table in report.tables(result):
        console.print(table)
    console.print(f"Written to {document} and {plot}", soft_wrap=True)


if __name__ == "__main__":
    main()
