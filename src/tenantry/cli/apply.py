"""`tenantry apply`: plans and tenants as files."""

from __future__ import annotations

import asyncio
from pathlib import Path

import rich_click as click

from tenantry.cli.control import control_plane
from tenantry.cli.output import json_option, print_json, print_table, quiet_option
from tenantry.cli.problems import ExitCode
from tenantry.platform.audit.service import cli_actor
from tenantry.platform.tenants.files import Applied, read_folder
from tenantry.platform.tenants.files import apply as apply_files

__all__ = ("apply",)


@click.command(epilog="Example: tenantry apply tenants --json")
@click.argument(
    "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), default=Path("tenants"), required=False
)
@json_option
@quiet_option
def apply(folder: Path, as_json: bool, quiet: bool) -> ExitCode:
    """Make and change plans and tenants as FOLDER declares them (by default `tenants`), and delete nothing.

    plans.toml holds the plans; <slug>.toml a tenant's name, plan and owner, who is invited when the tenant is made: the
    invitation is printed, once. Everything is checked before anything is done, and doing it again changes nothing. Ends
    with 2 where a file is not as expected, with 5 where the provisioner has not finished in time.
    """
    files = read_folder(folder)

    async def work() -> list[Applied]:
        async with control_plane() as control:
            return await apply_files(
                files,
                database=control.database,
                read_scope=control.read_scope,
                write_scope=control.write_scope,
                creator=control.creator,
                requested_by=cli_actor(),
                wait=control.settings.provision_wait,
            )

    applied = asyncio.run(work())
    if as_json:
        print_json(applied)
    elif not quiet:
        print_table(("Kind", "Name", "Result"), ((item.kind, item.slug, item.action) for item in applied))
    if not as_json:
        # Also with --quiet: nobody could get them again.
        for item in applied:
            if item.owner_invitation is not None:
                click.echo(f"Invitation of {item.slug}'s owner, shown once: {item.owner_invitation}")
    if any(item.action == "pending" for item in applied):
        click.echo("The provisioner has not finished yet; does it run? (`tenantry provisioner`)", err=True)
        return ExitCode.UNAVAILABLE
    return ExitCode.OK
