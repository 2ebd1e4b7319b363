"""`python -m benchmarks`: see `--help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import rich_click as click
from rich.console import Console

from benchmarks.load import LoadFailed
from benchmarks.progress import show_progress
from benchmarks.run import Options, run
from benchmarks.servers import ServerFailed
from tenantry.dev.process import ServerError
from tenantry.kernel.settings import SettingsError

if TYPE_CHECKING:
    from benchmarks.load import ClientName


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--setting")
    return name, value


@click.command(epilog="Example: python -m benchmarks --quick --json")
@click.option("--quick", is_flag=True, help="100 tenants, three rounds of a second: a look, not a result.")
@click.option("--tenants", type=click.IntRange(min=1), help="How many organizations.  [default: 1000]")
@click.option("--rounds", type=click.IntRange(min=1), help="How many rounds.  [default: 7]")
@click.option("--seconds", type=click.IntRange(min=1), help="Seconds of a burst; a round has nine.  [default: 2]")
@click.option("--connections", type=click.IntRange(min=1), default=8, show_default=True, help="Of the load.")
@click.option("--client", type=click.Choice(["wrk", "python"]), help="What makes the load.  [default: wrk if there]")
@click.option("--log-level", default="INFO", show_default=True, help="Of the servers; at INFO they log each request.")
@click.option("--profile/--no-profile", default=True, show_default=True, help="Say where a request's time goes.")
@click.option(
    "--home", type=click.Path(path_type=Path, file_okay=False), help="Keep the servers' data here, for the next run."
)
@click.option(
    "--setting", multiple=True, metavar="NAME=VALUE", help="A setting of all servers, such as database_connections=16."
)
@click.option("--json", "as_json", is_flag=True, help="Print the JSON instead of the tables.")
@click.option("--quiet", is_flag=True, help="No progress.")
def main(
    quick: bool,
    tenants: int | None,
    rounds: int | None,
    seconds: int | None,
    connections: int,
    client: ClientName | None,
    log_level: str,
    profile: bool,
    home: Path | None,
    setting: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure the product beside itself without tenancy, and beside the driver alone.

    Starts PostgreSQL, Valkey and the servers, fills them, measures for a few minutes, and cleans up. Writes a JSON
    file and a plot to benchmarks/results. An aim that is missed is shown as such and is no error.
    """
    options = Options(
        tenants=tenants or (100 if quick else 1000),
        rounds=rounds or (3 if quick else 7),
        seconds=seconds or (1 if quick else 2),
        warm_up=6 if quick else 60,
        connections=connections,
        client=client,
        log_level=log_level,
        profile=profile,
        home=home,
        settings=dict(_pair(text) for text in setting),
    )
    try:
        with show_progress(quiet=quiet) as tell:
            result = run(options, tell)
    except (LoadFailed, ServerFailed, ServerError, SettingsError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    # Only now, and only where a result is to be shown: matplotlib takes a second to import.
    from benchmarks import report

    document, plot = report.write(result, report.FOLDER)
    if as_json:
        sys.stdout.write(msgspec.json.format(document.read_bytes()).decode() + "\n")
        return
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(report.headline(result))
    for table in report.tables(result):
        console.print(table)
    console.print(f"Written to {document} and {plot}", soft_wrap=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["scale"]:
        from benchmarks.scale import main as measure_scale

        measure_scale(sys.argv[2:])
    main()
