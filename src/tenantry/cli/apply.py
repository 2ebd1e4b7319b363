"""`tenantry plan` and `tenantry apply`: plans and tenants as files."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from tenantry.cli.control import control_plane
from tenantry.cli.output import json_option, mail_option, print_json, print_table, quiet_option
from tenantry.cli.problems import ExitCode
from tenantry.cli.progress import progress_bar
from tenantry.features import ENTITLEMENTS
from tenantry.platform.audit.service import cli_actor
from tenantry.platform.tenants.files import read_folder
from tenantry.platform.tenants.plan import Applied, Change, compare
from tenantry.platform.tenants.plan import apply as apply_files

if TYPE_CHECKING:
    from tenantry.platform.tenants.files import TenantFiles

__all__ = ("apply", "plan")

_SIGNS: Mapping[str, tuple[str, str]] = {
    "create": ("+", "green"),
    "change": ("~", "yellow"),
    "blocked": ("!", "red"),
    "unmanaged": ("?", "bright_black"),
    "unchanged": (" ", "bright_black"),
}

_folder = click.argument(
    "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), default=Path("tenants"), required=False
)


@click.command(epilog="Example: tenantry plan tenants --check")
@_folder
@click.option("--check", is_flag=True, help="End with 1 where `apply` would do something: for pipelines.")
@json_option
@quiet_option
def plan(folder: Path, check: bool, as_json: bool, quiet: bool) -> ExitCode:
    """Show what `tenantry apply FOLDER` would do, and do nothing.

    + is created, ~ changed, ? is there but in no file (and stays), ! cannot be carried out, for the reason beside it.
    Ends with 2 where a file is not as expected, naming file and line.
    """
    changes = asyncio.run(_compare(read_folder(folder, ENTITLEMENTS)))
    if as_json:
        print_json(changes)
    elif not quiet:
        _show(changes)
    differs = any(change.action in {"create", "change", "blocked"} for change in changes)
    return ExitCode.FAILED if check and differs else ExitCode.OK


@click.command(epilog="Example: tenantry apply tenants --json")
@_folder
@mail_option
@json_option
@quiet_option
def apply(folder: Path, mail: bool, as_json: bool, quiet: bool) -> ExitCode:
    """Make and change plans and tenants as FOLDER declares them (by default `tenants`), and delete nothing.

    plans.toml holds the plans; <slug>.toml a tenant's name, plan and owner, who is invited when the tenant is made: the
    invitation is printed, once, or with --mail sent to them and shown to nobody else. Everything is checked before
    anything is done, and doing it again changes nothing; `tenantry plan` shows beforehand what it would do. Ends with 1
    where a tenant could not be made or changed, which stops no other, with 2 where a file is not as expected, with 4
    where one declares a tenant that was deleted, with 5 where the provisioner has not finished in time.
    """
    files = read_folder(folder, ENTITLEMENTS)
    applied: list[Applied] = []

    async def work() -> None:
        async with control_plane() as control:
            if mail:
                control.require_mail()
            with progress_bar("Applying", quiet=quiet or as_json) as advance:
                await apply_files(
                    files,
                    database=control.database,
                    read_scope=control.read_scope,
                    write_scope=control.write_scope,
                    creator=control.creator,
                    requested_by=cli_actor(),
                    wait=control.settings.provision_wait,
                    mail_invitations=mail,
                    on_progress=advance,
                    on_applied=applied.append,
                )

    try:
        asyncio.run(work())
    except BaseException:
        # The database is gone, or somebody has pressed Ctrl-C: whoever was invited until then is invited.
        if applied:
            _tell(applied, as_json=as_json, quiet=quiet)
        raise
    _tell(applied, as_json=as_json, quiet=quiet)
    if any(item.action == "failed" for item in applied):
        return ExitCode.FAILED
    if any(item.action == "pending" for item in applied):
        click.echo("The provisioner has not finished yet; does it run? (`tenantry provisioner`)", err=True)
        return ExitCode.UNAVAILABLE
    return ExitCode.CONFLICT if any(item.action == "blocked" for item in applied) else ExitCode.OK


def _tell(applied: list[Applied], *, as_json: bool, quiet: bool) -> None:
    if as_json:
        print_json(applied)
    elif not quiet:
        print_table(("Kind", "Name", "Result"), ((item.kind, item.slug, item.action) for item in applied))
    if not as_json:
        # Also with --quiet: nobody could get them again.
        for item in applied:
            if item.owner_invitation is not None:
                click.echo(f"Invitation of {item.slug}'s owner, shown once: {item.owner_invitation}")
    for item in applied:
        if item.reason is not None:
            click.echo(f"{item.slug}: {item.reason}", err=True)


async def _compare(files: TenantFiles) -> list[Change]:
    async with control_plane() as control:
        return await compare(files, database=control.database, read_scope=control.read_scope)


def _show(changes: list[Change]) -> None:
    for change in changes:
        if change.action == "unchanged":
            continue
        sign, colour = _SIGNS[change.action]
        line = f"{sign} {change.kind} {change.slug}"
        if change.action == "unmanaged":
            line += "  (in no file; stays as it is)"
        if change.reason is not None:
            line += f"  ({change.reason})"
        click.secho(line, fg=colour)
        for name, difference in change.fields.items():
            if change.action == "create":
                if difference.to is not None:
                    click.echo(f"    {name} = {difference.to!r}")
            else:
                click.echo(f"    {name}: {difference.from_!r} -> {difference.to!r}")
    count = {action: sum(change.action == action for change in changes) for action in _SIGNS}
    click.echo(
        f"{count['create']} to create, {count['change']} to change, {count['unchanged']} unchanged, "
        f"{count['unmanaged']} unmanaged" + (f", {count['blocked']} blocked" if count["blocked"] else "") + "."
    )
