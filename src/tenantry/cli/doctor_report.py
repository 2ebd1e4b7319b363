"""What `tenantry doctor` shows: the worst first, each with what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import rich_click as click
from rich.table import Table
from rich.text import Text

from tenantry.cli.settings import table_console
from tenantry.doctor.findings import Severity

if TYPE_CHECKING:
    from tenantry.doctor.findings import Examination, Finding, Result

__all__ = ("show",)

_STYLES = {
    Severity.CRITICAL: "bold red",
    Severity.WARNING: "yellow",
    Severity.NOTE: "cyan",
    Severity.OK: "green",
}


def show(found: Examination) -> None:
    """A table for each severity, then what was left out, and one line of all."""
    console = table_console()
    for severity in reversed(Severity):
        rows = [(result, one) for result in found.checks for one in result.findings if one.severity is severity]
        if rows:
            console.print(_good(rows) if severity is Severity.OK else _bad(severity, rows))
    for result in found.checks:
        if result.skipped is not None:
            click.echo(f"{result.check} skipped: {result.skipped}")
    counts = [
        f"{sum(one.severity is severity for result in found.checks for one in result.findings):,} {severity}"
        for severity in reversed(Severity)
    ]
    looked = sum(result.skipped is None for result in found.checks)
    click.echo(f"{looked} checks in {found.seconds:.1f} s: {', '.join(counts)}.")


def _bad(severity: Severity, rows: list[tuple[Result, Finding]]) -> Table:
    table = Table(title=str(severity).upper(), title_style=_STYLES[severity], title_justify="left", header_style="bold")
    table.add_column("Finding", no_wrap=True)
    for name in ("What is", "What to do"):
        table.add_column(name, overflow="fold")
    table.show_lines = True
    for result, one in rows:
        # Text, not str: a name with brackets is no markup.
        what = Text(one.summary)
        for label, value in (("seen", one.seen), ("expected", one.expected)):
            if value is not None:
                what.append(f"\n{label}: {value}", style="dim")
        todo = Text(one.remedy or "-")
        todo.append(f"\n{result.page}", style="dim")
        table.add_row(Text(one.code, style=_STYLES[severity]), what, todo)
    return table


def _good(rows: list[tuple[Result, Finding]]) -> Table:
    table = Table(title="OK", title_style=_STYLES[Severity.OK], title_justify="left", header_style="bold")
    table.add_column("Finding", no_wrap=True)
    table.add_column("What is", overflow="fold")
    for _, one in rows:
        seen = "" if one.seen is None else f" ({one.seen})"
        table.add_row(Text(one.code, style=_STYLES[Severity.OK]), Text(one.summary + seen))
    return table
