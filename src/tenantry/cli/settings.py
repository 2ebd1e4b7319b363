"""`tenantry settings`: every variable that the service reads, and what it has."""

from __future__ import annotations

import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tenantry.kernel.settings import Settings, SettingsError, describe, load_settings

__all__ = ("settings", "settings_or_exit")

_NARROWEST = 120
"""Columns of the table where the output is no terminal: rich would take 80 and break the variables' names."""


def settings_or_exit() -> Settings:
    """The settings of this environment; where they are wrong, say what on stderr and exit with 2."""
    try:
        return load_settings()
    except SettingsError as error:
        click.echo(str(error), err=True)
        click.echo("Run `tenantry settings --help` to see how settings are given.", err=True)
        raise SystemExit(2) from None


def table_console() -> Console:
    """A console for tables on stdout."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=max(console.width, _NARROWEST))


@click.command(epilog="Example: TENANTRY_PORT=8080 tenantry settings --json")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of a table.")
def settings(as_json: bool) -> None:
    """Show every setting: its variable, its value here, its default and what it is for.

    Settings come from the environment alone. Values that differ from the default are in bold; passwords are never
    shown. Exits with 2 and lists what is wrong if the environment is not valid.
    """
    docs = describe(settings_or_exit())
    if as_json:
        rows = [
            {
                "name": doc.name,
                "variable": doc.variable,
                "type": doc.type,
                "default": doc.default,
                "value": doc.value,
                "isSet": doc.is_set,
                "description": doc.description,
            }
            for doc in docs
        ]
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
        return
    table = Table(header_style="bold")
    table.add_column("Variable", no_wrap=True)
    table.add_column("Value", overflow="fold")
    table.add_column("Default", overflow="fold")
    table.add_column("Description", overflow="fold")
    for doc in docs:
        # Text, not str: a value with brackets is no markup.
        value = Text(_shown(doc.value), style="bold" if doc.value != doc.default else "")
        description = Text(f"{doc.description} Takes {doc.type}.")
        table.add_row(Text(doc.variable), value, Text(_shown(doc.default)), description)
    table_console().print(table)


def _shown(value: str | None) -> str:
    return value if value else "-"
