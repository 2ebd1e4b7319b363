"""`tenantry migrate status` and `resume`."""

from __future__ import annotations

import asyncio
from uuid import UUID

import rich_click as click
from sqlalchemy import select

from tenantry.cli.control import control_plane
from tenantry.cli.migrate_rollouts import carry_out, owner_settings
from tenantry.cli.output import json_option, print_json, quiet_option
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.cli.rollout_report import StatusRead, show_status, status_of
from tenantry.kernel.actor import cli_actor
from tenantry.platform.rollouts import steering
from tenantry.platform.rollouts.models import Rollout
from tenantry.platform.rollouts.runner import RolloutRunner

__all__ = ("resume", "status")


@click.command(epilog="Example: tenantry migrate status --json")
@json_option
def status(as_json: bool) -> None:
    """Show which tenants are at which revision, and the latest rollout."""

    async def work() -> StatusRead:
        async with control_plane() as control, control.database.transaction(control.read_scope) as transaction:
            return await status_of(steering.fetch_in(transaction.session))

    found = asyncio.run(work())
    if as_json:
        print_json(found)
    else:
        show_status(found)


@click.command(epilog="Example: tenantry migrate resume")
@click.argument("rollout", type=click.UUID, required=False)
@json_option
@quiet_option
def resume(rollout: UUID | None, as_json: bool, quiet: bool) -> ExitCode:
    """Go on with a rollout that was halted or cancelled; by default the latest one.

    Tenants that failed are tried again. Needs TENANTRY_DATABASE_OWNER_URL. Ends with 3 where there is none, with 4
    where it is neither, or another one is running.
    """
    settings, owner_url = owner_settings()

    async def work() -> ExitCode:
        async with (
            control_plane(settings) as control,
            control.database.transaction(control.write_scope) as transaction,
        ):
            found = rollout or await transaction.session.scalar(select(Rollout.id).order_by(Rollout.id.desc()).limit(1))
            if found is None:
                raise CommandError("there has not been any rollout", ExitCode.NOT_FOUND)
            await steering.resume(transaction.session, found, actor=cli_actor())
        return await carry_out(RolloutRunner(owner_url), settings, found, ours=True, as_json=as_json, quiet=quiet)

    return asyncio.run(work())
