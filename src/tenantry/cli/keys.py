"""`tenantry keys`: the keys that sign access tokens, and those that seal stored secrets."""

from __future__ import annotations

import datetime as dt

import rich_click as click

from tenantry.cli.output import json_option, print_json, print_table
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.cli.settings import settings_or_exit
from tenantry.kernel.security import KeyInfo, Keyring, SealingKeyInfo, Vault

__all__ = ("keys",)


@click.group(epilog="Example: tenantry keys rotate --yes")
def keys() -> None:
    """List, rotate and remove the keys that sign access tokens, and those that seal stored secrets."""


@keys.command("list", epilog="Example: tenantry keys list --json")
@json_option
def list_keys(as_json: bool) -> None:
    """List the key that signs, the retired ones whose tokens are still valid, and the keys that seal secrets.

    Only names and times are shown, never a key.
    """
    settings = settings_or_exit()
    signing = _open_ring().keys()
    rows = [_signing_row(info) for info in signing]
    # One that is not named is made when it is first needed.
    if settings.vault_file is not None or settings.vault_path.exists():
        sealing = _open_vault().keys()
        rows += [_sealing_row(info) for info in sealing]
    if as_json:
        print_json(rows)
        return
    fields = ("kid", "kind", "use", "createdAt", "sealsFrom", "retiresAt")
    print_table(("Key", "Kind", "Use", "Made", "From", "Until"), [[row[field] for field in fields] for row in rows])


@keys.command("create", epilog="Example: TENANTRY_VAULT_FILE=/keys/vault.json tenantry keys create")
@click.option(
    "--signing",
    is_flag=True,
    help="The file of keys that sign tokens, TENANTRY_KEYRING, instead: where processes get copies of it, and none can "
    "make it for the others.",
)
@json_option
def create(signing: bool, as_json: bool) -> None:
    """Make the file of keys that seal secrets, TENANTRY_VAULT_FILE, with one key; ends with 4 where it is there.

    Keep a copy apart from the database's backups: without this file, what was sealed cannot be read again. The
    signing keys mostly need no such command, the service makes them.
    """
    settings = settings_or_exit()
    if signing:
        path = settings.keyring_path
        if path.exists():
            raise CommandError(f"there is a keyring at {path} already", ExitCode.CONFLICT)
        (signs,) = Keyring.open(path, retain=settings.keyring_retain).keys()
        row, said = _signing_row(signs), f"Signing key {signs.kid} in {path}"
    else:
        path = settings.vault_path
        if not Vault.make(path):
            raise CommandError(f"there is a vault at {path} already", ExitCode.CONFLICT)
        (seals,) = Vault(path).keys()
        row, said = _sealing_row(seals), f"Sealing key {seals.key_id} in {path}"
    if as_json:
        print_json(row)
        return
    click.echo(said)


@keys.command("rotate", epilog="Example: tenantry keys rotate --yes --json")
@click.option("--sealing", is_flag=True, help="The key that seals stored secrets, and not the one that signs.")
@click.option(
    "--after",
    "delay",
    type=click.IntRange(0, 31_536_000),
    metavar="SECONDS",
    help="With --sealing: the new key begins to seal so much later. For processes that do not share the file, but get "
    "copies of it that take a while to arrive.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def rotate(sealing: bool, delay: int | None, yes: bool, as_json: bool) -> None:
    """Make a new signing key and retire the old one; or, with --sealing, make a new sealing key.

    Tokens that were signed with the old key stay valid until they expire; its private half is deleted. Old sealing
    keys stay, to read what they sealed. Running processes use the new key within a second, none needs a restart.
    """
    if sealing:
        _rotate_sealing(delay or 0, yes=yes, as_json=as_json)
        return
    if delay is not None:
        raise click.UsageError("--after is for sealing keys alone: give --sealing as well.")
    ring = _open_ring()
    old = ring.signing_key().kid
    if not yes:
        # On stderr, so that `--json` leaves stdout to the answer.
        click.confirm(f"Replace the signing key {old} in {ring.path}?", abort=True, err=True)
    new = ring.rotate()
    infos = ring.keys()
    retired = [_signing_row(info) for info in infos if info.retires_at is not None]
    if as_json:
        print_json({**_signing_row(new), "retired": retired})
        return
    click.echo(f"New signing key: {new.kid}")
    for row in retired:
        click.echo(f"Still verifies:  {row['kid']} until {row['retiresAt']}")


@keys.command("remove", epilog="Example: tenantry keys remove 5f0c61c2a9d4e873 --force")
@click.argument("kid", metavar="KEY")
@click.option("--force", is_flag=True, help="Remove it, and give up whatever is still sealed by it.")
@json_option
def remove(kid: str, force: bool, as_json: bool) -> None:
    """Remove a sealing key, for ever: what is still sealed by it cannot be read any more, by anybody.

    Refused without --force, and for the key that seals now (with 4): rotate first. A retired signing key needs no
    removal, it goes by itself.
    """
    vault = _open_vault()
    if not force:
        raise CommandError(
            f"whatever is still sealed by {kid} could not be read any more; --force removes it all the same",
            ExitCode.USAGE,
        )
    try:
        removed = vault.remove(kid)
    except LookupError as error:
        raise CommandError(str(error), ExitCode.NOT_FOUND) from None
    except ValueError as error:
        raise CommandError(str(error), ExitCode.CONFLICT) from None
    if as_json:
        print_json({**_sealing_row(removed), "use": "removed"})
        return
    click.echo(f"Removed: {removed.key_id}")


def _rotate_sealing(delay: int, *, yes: bool, as_json: bool) -> None:
    vault = _open_vault()
    count = len(vault.keys())
    if not yes:
        click.confirm(f"Add a sealing key to the {count} in {vault.path}?", abort=True, err=True)
    new = vault.rotate(delay=delay)
    infos = vault.keys()
    earlier = [_sealing_row(info) for info in infos if info.key_id != new.key_id]
    if as_json:
        print_json({**_sealing_row(new), "earlier": earlier})
        return
    click.echo(f"New sealing key: {new.key_id}" + ("" if new.seals else f", which seals from {_time(new.seals_from)}"))
    for row in earlier:
        click.echo(f"Still {row['use']}:   {row['kid']}")


def _open_ring() -> Keyring:
    settings = settings_or_exit()
    # Not made here: with a mistyped TENANTRY_HOME a new ring would be rotated, and the leaked key stay in force.
    return Keyring.open(settings.keyring_path, retain=settings.keyring_retain, create=False)


def _open_vault() -> Vault:
    vault = Vault(settings_or_exit().vault_path)
    vault.open()
    return vault


def _signing_row(info: KeyInfo) -> dict[str, str | None]:
    return {
        "kid": info.kid,
        "kind": "signing",
        "use": "signs" if info.retires_at is None else "verifies",
        "createdAt": _time(info.created_at),
        "sealsFrom": None,
        "retiresAt": None if info.retires_at is None else _time(info.retires_at),
    }


def _sealing_row(info: SealingKeyInfo) -> dict[str, str | None]:
    return {
        "kid": info.key_id,
        "kind": "sealing",
        "use": "seals" if info.seals else "unseals",
        "createdAt": _time(info.created_at),
        "sealsFrom": _time(info.seals_from),
        "retiresAt": None,
    }


def _time(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
