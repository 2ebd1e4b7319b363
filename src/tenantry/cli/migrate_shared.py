"""`tenantry migrate shared`: the schema of the control plane."""

from __future__ import annotations

import asyncio

import rich_click as click

from tenantry.cli.output import json_option, print_json, quiet_option
from tenantry.kernel.home import complete
from tenantry.kernel.settings import SettingsError, load_settings

__all__ = ("shared",)


@click.command(epilog="Example: tenantry migrate shared --json")
@json_option
@quiet_option
def shared(as_json: bool, quiet: bool) -> None:
    """Bring the shared schema to this release's revision.

    Needs TENANTRY_DATABASE_OWNER_URL. Safe to run from several places at once, and again: then nothing happens.
    """
    settings = complete(load_settings(), owner=True, redis=False)
    if settings.database_owner_url is None:
        raise SettingsError(["TENANTRY_DATABASE_OWNER_URL: expected an address"])
    from tenantry.cli.content import migrate_shared

    before, after = asyncio.run(migrate_shared(settings.database_owner_url.get_secret_value()))
    if as_json:
        print_json({"tree": "shared", "from": before, "to": after})
    elif not quiet:
        click.echo(
            f"The shared schema is at {after} already."
            if before == after
            else f"The shared schema went from {before or 'nothing'} to {after}."
        )
