"""`tenantry bootstrap` and `harden`: the database, as its administrator."""

from __future__ import annotations

import asyncio
import secrets
import sys

import msgspec
import rich_click as click

from tenantry.cli.admin import account_of, claims, make_database, target_database, with_database
from tenantry.cli.output import json_option, print_fields, print_json, quiet_option, read_secret
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.kernel.home import read_owner_addresses
from tenantry.kernel.settings import load_settings
from tenantry.tenancy.bootstrap import Addresses
from tenantry.tenancy.bootstrap import harden as take_from_public

__all__ = ("bootstrap", "harden")

admin_url_option = click.option(
    "--admin-url-stdin", is_flag=True, help="Read the administrator's address from stdin; without it, it is asked for."
)


@click.command(epilog="Example: echo postgresql://postgres:secret@db/tenantry | tenantry bootstrap --admin-url-stdin")
@admin_url_option
@click.option("--database", help="The database to make; by default the address's, or `tenantry`.")
@click.option("--yes", is_flag=True, help="Do not ask before the passwords of roles that are there are changed.")
@json_option
def bootstrap(admin_url_stdin: bool, database: str | None, yes: bool, as_json: bool) -> None:
    """Make the roles and the database on a PostgreSQL server, and print the two addresses to log in with.

    The administrator is a superuser, or has CREATEROLE and CREATEDB, as managed servers give. It is never needed
    again, but for `tenantry harden`. The addresses hold new passwords, shown once: keep them where secrets are kept,
    TENANTRY_DATABASE_OWNER_URL away from the processes that serve.
    """
    admin_url = _admin_url(admin_url_stdin)
    name = database or target_database(admin_url)

    async def look() -> tuple[bool, bool]:
        account = await account_of(admin_url)
        return account.is_administrator, (await claims(admin_url, name)).roles_exist

    is_administrator, roles_exist = asyncio.run(look())
    if not is_administrator:
        raise CommandError("the address's role may not create roles: it needs CREATEROLE and CREATEDB", ExitCode.USAGE)
    if roles_exist and not yes:
        if admin_url_stdin:
            raise CommandError(
                "the server has Tenantry's roles already; with --yes they get new passwords, and whoever uses the old "
                "ones is locked out",
                ExitCode.CONFLICT,
            )
        click.confirm(
            "The server has Tenantry's roles already. Change their passwords, and lock out whoever uses the old ones?",
            abort=True,
            err=True,
        )
    addresses: Addresses = asyncio.run(
        make_database(admin_url, name, owner_password=secrets.token_urlsafe(32), app_password=secrets.token_urlsafe(32))
    )
    if as_json:
        print_json({"databaseUrl": addresses.app_url, "databaseOwnerUrl": addresses.owner_url})
        return
    click.echo(f"TENANTRY_DATABASE_URL={addresses.app_url}")
    click.echo(f"TENANTRY_DATABASE_OWNER_URL={addresses.owner_url}")
    click.echo("Next: `tenantry harden` as a superuser, then `tenantry migrate shared`.", err=True)


@click.command(epilog="Example: echo postgresql://postgres:secret@db/tenantry | tenantry harden --admin-url-stdin")
@admin_url_option
@click.option("--check", is_flag=True, help="Change nothing, only report.")
@json_option
@quiet_option
def harden(admin_url_stdin: bool, check: bool, as_json: bool, quiet: bool) -> None:
    """Close the ways by which SQL that was injected into one tenant's statement could reach another tenant.

    Takes set_config(), anonymous plpgsql blocks and temporary tables from PUBLIC, in the database that the address
    names, and reads back what is left: only a superuser can do all of it. Ends with 1 where something is left. Without
    an address, the embedded server of TENANTRY_HOME is hardened, as `tenantry up` has done.
    """
    url = _harden_url(admin_url_stdin)

    async def work() -> HardeningRead:
        from tenantry.cli.admin import read_hardening

        await account_of(url)
        report = await (read_hardening(url) if check else take_from_public(url))
        return HardeningRead(
            set_config_revoked=report.set_config_revoked,
            plpgsql_revoked=report.plpgsql_revoked,
            temporary_revoked=report.temporary_revoked,
            session_locks_revoked=report.session_locks_revoked,
            large_objects_revoked=report.large_objects_revoked,
            complete=report.complete,
        )

    found = asyncio.run(work())
    if as_json:
        print_json(found)
    elif not quiet:
        print_fields(
            {
                "set_config()": "closed" if found.set_config_revoked else "open",
                "plpgsql blocks": "closed" if found.plpgsql_revoked else "open",
                "temporary tables": "closed" if found.temporary_revoked else "open",
                "session locks": "closed" if found.session_locks_revoked else "open",
                "large objects": "closed" if found.large_objects_revoked else "open",
            }
        )
    if not found.complete:
        raise CommandError("SQL that is injected could cross tenants; run this as a superuser to close what is open")


class HardeningRead(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What `harden --json` prints."""

    set_config_revoked: bool
    plpgsql_revoked: bool
    temporary_revoked: bool
    session_locks_revoked: bool
    large_objects_revoked: bool
    complete: bool


def _admin_url(from_stdin: bool) -> str:
    if not from_stdin and not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask for the administrator's address: give --admin-url-stdin.")
    url = read_secret("The administrator's address").strip()
    if not url.startswith(("postgresql://", "postgres://")):
        raise CommandError(
            "the administrator's address: expected postgresql://user:password@host:port/database", ExitCode.USAGE
        )
    return url


def _harden_url(from_stdin: bool) -> str:
    if not from_stdin:
        known = read_owner_addresses(load_settings().home)
        if known is not None and known.superuser_url is not None:
            return known.superuser_url
    url = _admin_url(from_stdin)
    return with_database(url, target_database(url))
