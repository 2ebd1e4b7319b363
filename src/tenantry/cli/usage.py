"""`tenantry usage`: what tenants have used, for operators and for the bills."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import rich_click as click

from tenantry.cli.metering import open_meter
from tenantry.cli.output import json_option, print_fields, print_json, print_table, quiet_option
from tenantry.cli.progress import Progress
from tenantry.platform.usage.schemas import MeteredUsage, month_of
from tenantry.platform.usage.service import Metering, export_pieces
from tenantry.tenancy.use import period, today

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantry.platform.usage.schemas import ExportFormat, ExportRows

__all__ = ("usage",)

_DAY = click.DateTime(formats=["%Y-%m-%d"])


@click.group(epilog="Example: tenantry usage show acme")
def usage() -> None:
    """Show what tenants have used, and export it for the bills."""


@usage.command(epilog="Example: tenantry usage show acme --from 2026-11-01 --to 2026-11-30")
@click.argument("slug")
@click.option("--from", "since", type=_DAY, metavar="DAY", help="The first day; that of this month by default.")
@click.option("--to", "until", type=_DAY, metavar="DAY", help="The last day; today by default, in UTC.")
@json_option
def show(slug: str, since: datetime.datetime | None, until: datetime.datetime | None, as_json: bool) -> None:
    """Show what one tenant takes up now, and what it has used day by day.

    Of a purged one the days are left: its slug is then `purged-` and its id without hyphens. Ends with 2 where there is
    no such tenant.
    """
    days = period(since and since.date(), until and until.date())

    async def work() -> MeteredUsage:
        # All the domains, which count what there is in a tenant's own.
        from tenantry.features import USAGE_HOOKS

        async with open_meter() as meter:
            control = meter.control
            tenant = await control.tenant(slug)
            metering = Metering(
                database=control.database,
                read_scope=control.read_scope,
                redis=meter.redis,
                jobs=meter.jobs,
                hooks=USAGE_HOOKS,
            )
            if tenant.status == "purged":
                return await metering.days(tenant.id, *days)
            return await metering.of(control.context(tenant), *days)

    found = asyncio.run(work())
    if as_json:
        print_json(found)
        return
    jobs = found.jobs
    print_fields(
        {
            "size": f"{found.size / 1024:,.0f} KiB",
            "users": found.users,
            "last activity at": found.last_activity_at and f"{found.last_activity_at:%Y-%m-%d %H:%M}",
            "pending operation": found.pending_operation,
            "jobs": jobs and f"{jobs.waiting:,} waiting, {jobs.active:,} at work, {jobs.dead:,} dead",
            "connections": found.connections,
        }
    )
    rows = [(f"{day.day}", day.plan, day) for day in found.days]
    if found.total is not None:
        rows.append(("(all)", "", found.total))  # type: ignore[arg-type]
    print_table(
        ("Day", "Plan", "Requests", "Jobs", "Storage", "Seats"),
        (
            (
                name,
                plan,
                f"{row.requests:,}",
                f"{row.jobs:,}",
                None if row.storage_bytes is None else f"{row.storage_bytes / 1024:,.0f} KiB",
                row.seats,
            )
            for name, plan, row in rows
        ),
    )
    if not found.is_live:
        click.echo("Redis does not answer: what was used in the last minute is missing.", err=True)


def _month(_: click.Context, __: click.Parameter, text: str | None) -> str:
    text = text or f"{today():%Y-%m}"
    try:
        month_of(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None
    return text


@usage.command(epilog="Example: tenantry usage export --month 2026-11 --format csv --output november.csv")
@click.option("--month", callback=_month, metavar="YYYY-MM", help="Which month, in UTC; the present one by default.")
@click.option(
    "--format", "form", type=click.Choice(("csv", "jsonl")), default="csv", show_default=True, help="As CSV or JSON."
)
@click.option(
    "--rows",
    type=click.Choice(("tenant", "day")),
    default="tenant",
    show_default=True,
    help="A line for each tenant and plan, or for each day of it.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write it there, and replace what is there; to stdout by default.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format jsonl.")
@quiet_option
def export(month: str, form: ExportFormat, rows: ExportRows, output: Path | None, as_json: bool, quiet: bool) -> None:
    """Export what all tenants have used in a month, purged ones included.

    FILE is there whole or not at all.
    """
    form = "jsonl" if as_json else form

    async def work(target: BinaryIO) -> int:
        written = 0
        async with open_meter() as meter:
            control = meter.control
            with Progress(quiet=quiet or output is None).step(f"Exporting {month}"):
                async for piece in export_pieces(control.database, control.read_scope, month, rows=rows, form=form):
                    target.write(piece)
                    written += piece.count(b"\n")
        return written

    with _open(output) as target:
        lines = asyncio.run(work(target))
    if output is not None and not quiet:
        click.echo(f"{lines - (form == 'csv'):,} lines are in {output}.")


@contextlib.contextmanager
def _open(output: Path | None) -> Iterator[BinaryIO]:
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    beside = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with beside.open("xb") as target:
            yield target
        beside.replace(output)
    finally:
        beside.unlink(missing_ok=True)
