"""What commands print, and how they read what must not be on a command line."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import rich_click as click
from rich.table import Table
from rich.text import Text

from tenantry.cli.problems import CommandError, ExitCode
from tenantry.cli.settings import table_console

__all__ = (
    "checked",
    "json_option",
    "mail_option",
    "print_fields",
    "print_json",
    "print_table",
    "quiet_option",
    "read_secret",
)

StructT = TypeVar("StructT", bound=msgspec.Struct)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
mail_option = click.option(
    "--mail", is_flag=True, help="Mail owners their invitations, instead of printing them where a log may keep them."
)
quiet_option = click.option("--quiet", is_flag=True, help="Print nothing but errors.")


def print_json(value: Any) -> None:
    """Structs and what JSON has; one value, indented."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    table = Table(header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        # Text, not str: a name with brackets is no markup.
        table.add_row(*(Text("-" if cell is None else str(cell)) for cell in row))
    table_console().print(table)


def print_fields(fields: Mapping[str, object]) -> None:
    """One thing, a line for each of its fields."""
    width = max(map(len, fields))
    for name, value in fields.items():
        click.echo(f"{name:<{width}}  {'-' if value is None else value}")


def read_secret(label: str, *, confirm: bool = False) -> str:
    """A password or an address with one: all of stdin, or asked for at a terminal without an echo.

    Raises:
        CommandError: there is none.
    """
    if sys.stdin.isatty():
        return str(click.prompt(label, hide_input=True, confirmation_prompt=confirm, err=True))
    try:
        secret = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise CommandError(f"{label}: stdin holds no UTF-8", ExitCode.USAGE) from None
    if not secret:
        raise CommandError(f"{label}: expected on stdin, which is empty", ExitCode.USAGE)
    return secret


def checked(kind: type[StructT], /, **values: Any) -> StructT:
    """Options as the API's struct, with its constraints; those that are None were not given.

    Raises:
        ValidationFailedException: naming each field that is not as expected.
    """
    from tenantry.kernel.errors import ValidationFailedException
    from tenantry.kernel.http.fields import collect_errors
    from tenantry.kernel.schema import camel

    given = {camel(name): value for name, value in values.items() if value is not None}
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise ValidationFailedException(errors=collect_errors(kind, given, str(error))) from None
