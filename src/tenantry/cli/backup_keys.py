"""`tenantry backup keys`: the keys that encrypt backups."""

from __future__ import annotations

import datetime as dt
from typing import Any

import rich_click as click

from tenantry.cli.output import json_option, print_json, print_table
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.cli.settings import settings_or_exit
from tenantry.kernel.security import SealingKeyInfo, Vault
from tenantry.platform.backups.store import open_keys

__all__ = ("keys",)


@click.group(epilog="Example: tenantry backup keys list")
def keys() -> None:
    """Make, list and rotate the keys that encrypt backups, in TENANTRY_BACKUP_KEY_FILE.

    Keep a copy of the file where neither the database nor the backups are: without it, nobody reads a backup again.
    """


@keys.command("create", epilog="Example: TENANTRY_BACKUP_KEY_FILE=/keys/backup.json tenantry backup keys create")
@json_option
def create(as_json: bool) -> None:
    """Make the file, with one key; ends with 4 where it is there."""
    path = settings_or_exit().backup_key_path
    if not Vault.make(path):
        raise CommandError(f"there is a file of keys at {path} already", ExitCode.CONFLICT)
    (info,) = Vault(path).keys()
    if as_json:
        print_json(_row(info))
        return
    click.echo(f"The key {info.key_id} is in {path}. Keep a copy of that file in another place.")


@keys.command("list", epilog="Example: tenantry backup keys list --json")
@json_option
def list_keys(as_json: bool) -> None:
    """List the keys by name, never the keys themselves."""
    rows = [_row(info) for info in _open().keys()]  # noqa: SIM118 - no mapping
    if as_json:
        print_json(rows)
        return
    print_table(("Key", "Made", "Use"), [(row["keyId"], row["createdAt"], row["use"]) for row in rows])


@keys.command("rotate", epilog="Example: tenantry backup keys rotate --yes")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def rotate(yes: bool, as_json: bool) -> None:
    """Add a key, which encrypts from now on; the others go on to decrypt what they have encrypted.

    Keep a copy of the file once more. A key may be taken out of the file when the last backup of it is pruned.
    """
    vault = _open()
    if not yes:
        click.confirm(f"Add a key to those in {vault.path}?", abort=True, err=True)
    new = vault.rotate()
    if as_json:
        print_json(_row(new))
        return
    click.echo(f"The key {new.key_id} encrypts from now on. Keep a copy of {vault.path} in another place.")


def _open() -> Vault:
    return open_keys(settings_or_exit())


def _row(info: SealingKeyInfo) -> dict[str, Any]:
    return {
        "keyId": info.key_id,
        "createdAt": dt.datetime.fromtimestamp(info.created_at, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "use": "encrypts" if info.seals else "decrypts",
    }
