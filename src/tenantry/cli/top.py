"""`tenantry top`: what is going on, over and over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import rich_click as click
from rich.columns import Columns
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tenantry.cli.metering import open_meter
from tenantry.cli.output import json_option, print_json
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.cli.settings import table_console
from tenantry.platform.usage.live import TopReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

    from tenantry.platform.usage.live import Sort
    from tenantry.platform.usage.schemas import Top

__all__ = ("render", "top", "watch")

_OLD = 60
"""Seconds after which a job that waits is shown in red: no worker runs, or too few."""


@click.command(epilog="Example: tenantry top --sort waiting --limit 10\n\nExample: tenantry top --once --json")
@click.option("--once", is_flag=True, help="Look twice, show it, and end.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most so many tenants.")
@click.option(
    "--sort",
    type=click.Choice(("requests", "jobs", "waiting", "connections", "today")),
    default="requests",
    show_default=True,
    help="Who comes first: by requests or jobs per second, jobs that wait, connections, or requests today.",
)
@json_option
def top(once: bool, interval: float, limit: int, sort: Sort, as_json: bool) -> None:
    """Watch the busiest tenants, the queues, the database connections and rollouts; Ctrl-C ends it.

    Rates are those since the last look. With --json it prints a value for each look, a line each; with --once as well,
    one value.
    """
    console = table_console()
    if not (once or as_json or console.is_terminal):
        raise CommandError("Expected a terminal; --once shows it once.", ExitCode.USAGE)

    async def work() -> None:
        async with open_meter() as meter:
            control = meter.control
            reader = TopReader(
                database=control.database, read_scope=control.read_scope, redis=meter.redis, jobs=meter.jobs
            )
            found = await reader.look(limit=limit, sort=sort)
            if once:
                await asyncio.sleep(interval)
                found = await reader.look(limit=limit, sort=sort)
                if as_json:
                    print_json(found)
                else:
                    console.print(render(found))
            elif as_json:
                while True:
                    click.echo(msgspec.json.encode(found))
                    await asyncio.sleep(interval)
                    found = await reader.look(limit=limit, sort=sort)
            else:
                await watch(console, reader, found, interval=interval, limit=limit, sort=sort)

    try:
        asyncio.run(work())
    except KeyboardInterrupt:
        # It is how one leaves, unless somebody waits for the one answer.
        if once:
            raise


async def watch(
    console: Console,
    reader: TopReader,
    found: Top,
    *,
    interval: float,
    limit: int,
    sort: Sort,
    looks: int | None = None,
) -> None:
    """Show `found`, and look again every `interval` seconds; for ever, or so many times."""
    # Takes a tenth of a second to import, which a single look need not wait for.
    from rich.live import Live

    with Live(render(found), console=console, screen=True, auto_refresh=False) as live:
        live.refresh()
        while looks is None or looks > 0:
            await asyncio.sleep(interval)
            found = await reader.look(limit=limit, sort=sort)
            live.update(render(found), refresh=True)
            looks = None if looks is None else looks - 1


def render(top: Top) -> RenderableType:
    """All of it, for a terminal."""
    parts: list[RenderableType] = [_head(top), _tenants(top)]
    panels = [_queues(top), _processes(top)]
    if top.rollouts:
        panels.append(_rollouts(top))
    return Group(*parts, Columns(panels))


def _head(top: Top) -> Text:
    head = Text.assemble(
        (f"{top.at:%Y-%m-%d %H:%M:%S} UTC", "bold"),
        f"  {_rate(top.requests_per_second)} requests/s  {_rate(top.jobs_per_second)} jobs/s"
        f"  {top.active_tenants:,} tenants active",
    )
    if not top.is_live:
        head.append("\nRedis does not answer: counts and queues are not known.", style="red")
    return head


def _tenants(top: Top) -> Table:
    table = _table(
        "Tenant", "Requests/s", "Jobs/s", "Requests today", "Jobs today", "Waiting", "At work", "Connections"
    )
    for row in top.tenants:
        table.add_row(
            # Text, not str: a name with brackets is no markup.
            Text(row.tenant or f"({row.tenant_id})"),
            _rate(row.requests_per_second),
            _rate(row.jobs_per_second),
            *_counts(row.requests_today, row.jobs_today, row.jobs_waiting, row.jobs_active, row.connections),
        )
    return table


def _queues(top: Top) -> Panel:
    queues = top.queues
    if queues is None:
        return Panel(Text("not known"), title="Jobs", expand=False)
    oldest = queues.oldest_waiting
    text = Text(f"{queues.waiting:,} ready, {queues.active:,} at work, {queues.scheduled:,} scheduled\n")
    text.append(f"{queues.dead:,} dead", style="red" if queues.dead else "")
    text.append(f", {top.workers:,} workers", style="" if top.workers else "red")
    if oldest is not None:
        text.append(f"\noldest waits {oldest:,.1f} s", style="red" if oldest > _OLD else "")
    return Panel(text, title="Jobs", expand=False)


def _processes(top: Top) -> Panel:
    table = _table("Process", "Connections", "In use")
    for row in top.processes:
        table.add_row(Text(row.name or "(unnamed)"), *_counts(row.connections, row.in_use))
    warm = Text(f"{top.warm_schemas:,} warm schemas")
    return Panel(Group(table, warm), title="Database", expand=False)


def _rollouts(top: Top) -> Panel:
    table = _table("To", "Status", "Done", "Failed", "Left")
    for row in top.rollouts:
        status = Text(row.status, style="red" if row.status == "halted" else "")
        table.add_row(Text(row.target), status, *_counts(row.done, row.failed, row.pending))
    return Panel(table, title="Rollouts", expand=False)


def _table(first: str, *others: str) -> Table:
    table = Table(header_style="bold", box=None)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _counts(*counts: int) -> Sequence[str]:
    return [f"{count:,}" for count in counts]


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:,.1f}"
