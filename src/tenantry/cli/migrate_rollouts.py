"""`tenantry migrate tenants`, where there is something to do, `status` and `resume`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import rich_click as click
from sqlalchemy import select

from tenantry.cli.control import ControlPlane, control_plane
from tenantry.cli.output import json_option, print_json, quiet_option
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.cli.progress import progress_bar
from tenantry.cli.rollout_report import (
    FailureRead,
    RolloutReport,
    StatusRead,
    read_report,
    show_plan,
    show_report,
    show_status,
    status_of,
)
from tenantry.kernel.errors import ConflictException
from tenantry.kernel.home import complete
from tenantry.kernel.settings import SettingsError, load_settings
from tenantry.platform.audit.service import cli_actor
from tenantry.platform.rollouts import steering
from tenantry.platform.rollouts.models import Rollout
from tenantry.platform.rollouts.planning import Plan, plan
from tenantry.platform.rollouts.runner import Progress, RolloutRunner

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenantry.kernel.settings import Settings

__all__ = ("FailureRead", "Options", "RolloutReport", "StatusRead", "migrate_tenants", "resume", "status")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for; None where the deployment's setting is."""

    canary: int
    concurrency: int | None
    only: tuple[str, ...] | None
    halt_after: int
    lock_timeout: float | None
    """Seconds."""
    show_plan: bool
    yes: bool
    as_json: bool
    quiet: bool


def migrate_tenants(options: Options) -> ExitCode:
    """Start a rollout and carry it out, or join the one that is running."""
    settings, owner_url = _owner_settings()
    return asyncio.run(_migrate_tenants(options, settings, owner_url))


async def _migrate_tenants(options: Options, settings: Settings, owner_url: str) -> ExitCode:
    async with control_plane(settings) as control:
        async with control.database.transaction(control.read_scope) as transaction:
            planned = await plan(transaction.session, only=options.only)
            running = await transaction.session.scalar(select(Rollout.id).where(Rollout.status == "running"))
        if options.show_plan:
            show_plan(planned, as_json=options.as_json, quiet=options.quiet)
            return ExitCode.OK
        if running is not None:
            return await _join(control, owner_url, running, options)
        if not planned.stale:
            report = RolloutReport(target=planned.target, status="done")
            show_report(report, as_json=options.as_json, quiet=options.quiet)
            return ExitCode.OK
        _confirm(planned, options)
        try:
            async with control.database.transaction(control.write_scope) as transaction:
                started = await steering.start_rollout(
                    transaction.session,
                    target=planned.target,
                    canary=options.canary,
                    concurrency=options.concurrency or settings.rollout_concurrency,
                    halt_after=options.halt_after,
                    lock_timeout=round((options.lock_timeout or settings.rollout_lock_timeout) * 1000),
                    max_attempts=settings.rollout_attempts,
                    only=options.only,
                    requested_by=cli_actor(),
                )
        except ConflictException as error:
            if (other := error.members.get("rollout")) is None:
                raise
            return await _join(control, owner_url, UUID(other), options)
        return await _carry_out(control, owner_url, started.id, ours=True, as_json=options.as_json, quiet=options.quiet)


async def _join(control: ControlPlane, owner_url: str, rollout_id: UUID, options: Options) -> ExitCode:
    click.echo(f"The rollout {rollout_id} is running already; this is its progress.", err=True)
    return await _carry_out(control, owner_url, rollout_id, ours=False, as_json=options.as_json, quiet=options.quiet)


def _confirm(planned: Plan, options: Options) -> None:
    """Ask at a terminal; elsewhere, only what cannot be undone needs to be allowed."""
    if options.yes:
        return
    for_good = sorted({step.id for group in planned.groups for step in group.steps if step.irreversible})
    if sys.stdin.isatty():
        show_plan(planned, as_json=False, quiet=False)
        warning = f" Of the revisions, {', '.join(for_good)} cannot be undone." if for_good else ""
        click.confirm(f"Migrate {planned.stale:,} tenants to {planned.target}?{warning}", abort=True, err=True)
    elif for_good:
        raise CommandError(
            f"the revisions {', '.join(for_good)} cannot be undone: give --yes to run them", ExitCode.USAGE
        )


async def _carry_out(
    control: ControlPlane, owner_url: str, rollout_id: UUID, *, ours: bool, as_json: bool, quiet: bool
) -> ExitCode:
    """Carry it out, or watch whoever does, until it has ended; and report."""
    runner = RolloutRunner(owner_url)
    task = asyncio.ensure_future(_run(runner, rollout_id, quiet=quiet))
    interruptions = _Interruptions(control, rollout_id, runner, task, ours=ours)
    try:
        with _on_signals(interruptions.interrupt):
            await task
        if interruptions.cancelling is not None:
            await interruptions.cancelling
    except asyncio.CancelledError:
        if not task.cancelled():
            raise
        click.echo(f"The rollout {rollout_id} goes on without this command.", err=True)
        return ExitCode.FAILED
    async with control.database.transaction(control.read_scope) as transaction:
        report = await read_report(transaction.session, rollout_id)
    show_report(report, as_json=as_json, quiet=quiet)
    return ExitCode.OK if report.status == "done" and not report.failed else ExitCode.FAILED


async def _run(runner: RolloutRunner, rollout_id: UUID, *, quiet: bool) -> None:
    with progress_bar("Migrating", quiet=quiet) as tell:

        def show(progress: Progress) -> None:
            tell(progress.done + progress.failed, progress.total)

        await runner.run(rollout_id, show)


@dataclass
class _Interruptions:
    """What Ctrl-C does: cancel the rollout in order; the second time, or where it is another's, leave it."""

    control: ControlPlane
    rollout_id: UUID
    runner: RolloutRunner
    task: asyncio.Future[None]
    ours: bool
    cancelling: asyncio.Task[None] | None = None

    def interrupt(self) -> None:
        if not self.ours or self.cancelling is not None:
            self.task.cancel()
            return
        click.echo(
            f"Cancelled: the tenants under way are finished. `tenantry migrate resume {self.rollout_id}` goes on. "
            "(Ctrl-C again leaves at once.)",
            err=True,
        )
        self.runner.stop()
        self.cancelling = asyncio.get_running_loop().create_task(self._cancel())

    async def _cancel(self) -> None:
        # Where it has just ended, there is nothing to cancel.
        with contextlib.suppress(ConflictException):
            async with self.control.database.transaction(self.control.write_scope) as transaction:
                await steering.cancel(transaction.session, self.rollout_id, actor=cli_actor())


@contextmanager
def _on_signals(act: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, act)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@click.command(epilog="Example: tenantry migrate status --json")
@json_option
def status(as_json: bool) -> None:
    """Show which tenants are at which revision, and the latest rollout."""

    async def work() -> StatusRead:
        async with control_plane() as control, control.database.transaction(control.read_scope) as transaction:
            return await status_of(transaction.session)

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
    settings, owner_url = _owner_settings()

    async def work() -> ExitCode:
        async with control_plane(settings) as control:
            async with control.database.transaction(control.write_scope) as transaction:
                found = rollout or await transaction.session.scalar(
                    select(Rollout.id).order_by(Rollout.id.desc()).limit(1)
                )
                if found is None:
                    raise CommandError("there has not been any rollout", ExitCode.NOT_FOUND)
                await steering.resume(transaction.session, found, actor=cli_actor())
            return await _carry_out(control, owner_url, found, ours=True, as_json=as_json, quiet=quiet)

    return asyncio.run(work())


def _owner_settings() -> tuple[Settings, str]:
    settings = complete(load_settings(), owner=True, redis=False)
    if settings.database_owner_url is None:
        raise SettingsError(["TENANTRY_DATABASE_OWNER_URL: expected an address"])
    return settings, settings.database_owner_url.get_secret_value()
