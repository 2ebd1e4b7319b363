"""`tenantry keys`: the keys that sign access tokens."""

from __future__ import annotations

import datetime as dt
from typing import Any, NoReturn

import msgspec
import rich_click as click
from rich.table import Table
from rich.text import Text

from tenantry.cli.settings import settings_or_exit, table_console
from tenantry.kernel.security.keyring import KeyInfo, Keyring, KeyringError

__all__ = ("keys",)


@click.group(epilog="Example: tenantry keys rotate --yes")
def keys() -> None:
    """List and rotate the keys that sign access tokens."""


@keys.command("list", epilog="Example: tenantry keys list --json")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of a table.")
def list_keys(as_json: bool) -> None:
    """List the key that signs and the retired ones whose tokens are still valid.

    Only names and times are shown, never a key.
    """
    try:
        infos = _open().keys()
    except KeyringError as error:
        _fail(error)
    if as_json:
        _print_json([_row(info) for info in infos])
        return
    table = Table(header_style="bold")
    for column in ("Key", "Use", "Made", "Until"):
        table.add_column(column, no_wrap=True)
    for info in infos:
        row = _row(info)
        table.add_row(*(Text(row[name] or "-") for name in ("kid", "use", "createdAt", "retiresAt")))
    table_console().print(table)


@keys.command("rotate", epilog="Example: tenantry keys rotate --yes --json")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of text.")
def rotate(yes: bool, as_json: bool) -> None:
    """Make a new signing key and retire the old one.

    Tokens that were signed with the old key stay valid until they expire; its private half is deleted. Running
    processes sign with the new key within a second, none needs a restart.
    """
    try:
        ring = _open()
        old = ring.signing_key().kid
        if not yes:
            # On stderr, so that `--json` leaves stdout to the answer.
            click.confirm(f"Replace the signing key {old} in {ring.path}?", abort=True, err=True)
        new = ring.rotate()
        infos = ring.keys()
    except KeyringError as error:
        _fail(error)
    if as_json:
        _print_json({**_row(new), "retired": [_row(info) for info in infos if info.retires_at is not None]})
        return
    click.echo(f"New signing key: {new.kid}")
    for info in infos:
        if info.retires_at is not None:
            click.echo(f"Still verifies:  {info.kid} until {_time(info.retires_at)}")


def _open() -> Keyring:
    settings = settings_or_exit()
    # Not made here: with a mistyped TENANTRY_HOME a new ring would be rotated, and the leaked key stay in force.
    return Keyring.open(settings.keyring_path, retain=settings.keyring_retain, create=False)


def _row(info: KeyInfo) -> dict[str, str | None]:
    return {
        "kid": info.kid,
        "use": "signs" if info.retires_at is None else "verifies",
        "createdAt": _time(info.created_at),
        "retiresAt": None if info.retires_at is None else _time(info.retires_at),
    }


def _time(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _print_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _fail(error: KeyringError) -> NoReturn:
    click.echo(f"Error: {error}", err=True)
    raise SystemExit(1)
