"""`tenantry backup prune`: removing what is kept no longer."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import rich_click as click

from tenantry.cli.backup_context import backup_context
from tenantry.cli.output import json_option, print_json, quiet_option
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.platform.backups.retention import Keep, PrunePlan, plan_prune
from tenantry.platform.backups.retention import prune as carry_out

if TYPE_CHECKING:
    from tenantry.kernel.settings import Settings

__all__ = ("prune",)


@click.command(epilog="Example: tenantry backup prune --yes --json")
@click.option("--plan", "show_plan", is_flag=True, help="Show what would be removed, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@quiet_option
def prune(show_plan: bool, yes: bool, as_json: bool, quiet: bool) -> ExitCode:
    """Remove backups that are kept no longer, and schemas that were kept for undoing a restore.

    Of each tenant, and of the shared schema, the last one of each of so many days, weeks and months stays
    (TENANTRY_BACKUP_KEEP_DAILY, _WEEKLY, _MONTHLY), and always the last good one; of tenants that were purged, none
    after TENANTRY_BACKUP_KEEP_PURGED days. Ends with 1 where nothing good is left of somebody's: then nothing of
    theirs is removed.
    """

    async def work() -> tuple[PrunePlan, bool]:
        async with backup_context() as context:
            plan = await plan_prune(context.engine, context.store, _keep(context.settings))
            if show_plan or plan.is_empty:
                return plan, False
            _confirm(plan, yes=yes)
            await carry_out(context.engine, context.store, plan, actor=context.actor)
            return plan, True

    plan, done = asyncio.run(work())
    if as_json:
        print_json(
            {
                "done": done,
                "backups": [name.payload_key.removesuffix(".backup") for name in plan.backups],
                "unfinished": list(plan.files),
                "schemas": [kept.name for kept in plan.kept],
                "withoutGood": list(plan.stuck),
            }
        )
    elif not quiet:
        click.echo(f"{'Removed' if done else 'To be removed'}: {_in_words(plan)}.")
    for folder in plan.stuck:
        click.echo(f"{folder}: no backup in it is good; nothing of it was removed", err=True)
    return ExitCode.FAILED if plan.stuck else ExitCode.OK


def _keep(settings: Settings) -> Keep:
    return Keep(
        settings.backup_keep_daily,
        settings.backup_keep_weekly,
        settings.backup_keep_monthly,
        settings.backup_keep_purged,
    )


def _in_words(plan: PrunePlan) -> str:
    return (
        f"{len(plan.backups):,} backups, {len(plan.files):,} files of unfinished ones,"
        f" {len(plan.kept):,} schemas that were kept for undoing"
    )


def _confirm(plan: PrunePlan, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError("there is no terminal to ask at: give --yes", ExitCode.USAGE)
    click.confirm(f"Remove {_in_words(plan)}?", abort=True, err=True)
