"""`tenantry catalog`: what a schema for each tenant makes of the database."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import rich_click as click

from tenantry.cli.control import control_plane
from tenantry.cli.output import json_option, print_fields, print_json, print_table
from tenantry.platform.catalog.service import CatalogService

if TYPE_CHECKING:
    import datetime

    from tenantry.platform.catalog.schemas import CatalogOverview

__all__ = ("catalog",)

_MIB = 1024 * 1024


@click.command(epilog="Example: tenantry catalog --json")
@json_option
def catalog(as_json: bool) -> None:
    """Show how much there is in the database's catalog, and how it grows.

    It is measured every night by a job of the platform; `tenantry schedules run --platform measure_catalog` measures
    now. Dead rows that stay many, and a vacuum that was long ago, say that autovacuum does not keep up.
    """

    async def work() -> CatalogOverview:
        async with control_plane() as control, control.database.transaction(control.read_scope) as transaction:
            return await CatalogService(session=transaction.session).overview()

    found = asyncio.run(work())
    if as_json:
        print_json(found)
        return
    latest = found.latest
    if latest is None:
        click.echo("Nothing was measured yet: the first night does it, or `schedules run --platform measure_catalog`.")
        return
    print_fields(
        {
            "measured at": _time(latest.measured_at),
            "schemas": f"{latest.schemas:,}",
            "relations": f"{latest.relations:,}",
            "database": _size(latest.database_bytes),
            "jobs": ", ".join(f"{count:,} {status}" for status, count in sorted(latest.jobs.items())) or "none",
            "oldest pending": None if latest.oldest_pending is None else f"{latest.oldest_pending:,.1f} s",
        }
    )
    print_table(
        ("Table", "Size", "Indexes", "Rows", "Dead", "Vacuumed", "Analyzed"),
        (
            (
                table.name,
                _size(table.bytes),
                _size(table.index_bytes),
                f"{table.live:,}",
                f"{table.dead:,}",
                _time(table.vacuumed_at),
                _time(table.analyzed_at),
            )
            for table in latest.tables
        ),
    )
    if found.growth:
        print_table(
            ("In days", "Since", "Schemas", "Relations", "Database", "Catalog"),
            (
                (
                    row.days,
                    row.since,
                    f"{row.schemas:+,}",
                    f"{row.relations:+,}",
                    _size(row.database_bytes, "+"),
                    _size(row.catalog_bytes, "+"),
                )
                for row in found.growth
            ),
        )


def _time(moment: datetime.datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%d %H:%M}"


def _size(count: int, sign: str = "") -> str:
    return f"{count / _MIB:{sign},.1f} MiB"
