"""`tenantry migrate tenants`, where there is something to do.

It asks and starts as the owner, on the driver's connections. Neither the ORM nor Litestar is imported before or while
tenants are migrated: that took longer than migrating a thousand of them. A test watches it.
"""

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

from tenantry.cli.problems import CommandError, ExitCode
from tenantry.cli.rollout_report import RolloutReport, read_report, show_plan, show_report
from tenantry.kernel.actor import cli_actor
from tenantry.kernel.home import complete
from tenantry.kernel.logging import configure_logging
from tenantry.kernel.settings import SettingsError, load_settings
from tenantry.platform.rollouts.ledger import Settings as RolloutSettings
from tenantry.platform.rollouts.opening import open_rollout, running_rollout
from tenantry.platform.rollouts.planning import Plan, UnknownSlugError, plan
from tenantry.platform.rollouts.runner import Progress, RolloutRunner

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenantry.kernel.settings import Settings

__all__ = ("Options", "carry_out", "migrate_tenants", "owner_settings")


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
    settings, owner_url = owner_settings()
    return asyncio.run(_migrate_tenants(options, settings, owner_url))


async def _migrate_tenants(options: Options, settings: Settings, owner_url: str) -> ExitCode:
    # Events go to stderr: stdout is for the answer.
    configure_logging("WARNING", settings.log_format)
    runner = RolloutRunner(owner_url)
    async with runner.connect() as connection:
        try:
            planned = await plan(connection.fetch, only=options.only)
        except UnknownSlugError as error:
            raise CommandError(f"only: {error}", ExitCode.USAGE) from error
        found = await running_rollout(connection.fetch)
        if options.show_plan:
            show_plan(planned, as_json=options.as_json, quiet=options.quiet)
            return ExitCode.OK
        if found is None and not planned.stale:
            report = RolloutReport(target=planned.target, status="done")
            show_report(report, as_json=options.as_json, quiet=options.quiet)
            return ExitCode.OK
        started: UUID | None = None
        if found is None:
            _confirm(planned, options)
            wanted = RolloutSettings(
                target=planned.target,
                canary=options.canary,
                concurrency=options.concurrency or settings.rollout_concurrency,
                halt_after=options.halt_after,
                lock_timeout=round((options.lock_timeout or settings.rollout_lock_timeout) * 1000),
                max_attempts=settings.rollout_attempts,
                only=None if options.only is None else list(options.only),
            )
            started = await open_rollout(connection.fetch, wanted, requested_by=cli_actor())
            # None where somebody else was a moment faster.
            found = started or await running_rollout(connection.fetch)
    if found is None:
        raise CommandError("another rollout has just begun and ended: look again", ExitCode.CONFLICT)
    if started is None:
        click.echo(f"The rollout {found} is running already; this is its progress.", err=True)
    return await carry_out(
        runner, settings, found, ours=started is not None, as_json=options.as_json, quiet=options.quiet
    )


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


async def carry_out(
    runner: RolloutRunner, settings: Settings, rollout_id: UUID, *, ours: bool, as_json: bool, quiet: bool
) -> ExitCode:
    """Carry it out, or watch whoever does, until it has ended; and report."""
    task = asyncio.ensure_future(_run(runner, rollout_id, quiet=quiet))
    interruptions = _Interruptions(settings, rollout_id, runner, task, ours=ours)
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
    async with runner.connect() as connection:
        report = await read_report(connection.fetch, rollout_id)
    show_report(report, as_json=as_json, quiet=quiet)
    return ExitCode.OK if report.status == "done" and not report.failed else ExitCode.FAILED


async def _run(runner: RolloutRunner, rollout_id: UUID, *, quiet: bool) -> None:
    if quiet or not sys.stderr.isatty():
        await runner.run(rollout_id)
        return
    # Rich is for those who look on.
    from tenantry.cli.progress import progress_bar

    with progress_bar("Migrating") as tell:

        def show(progress: Progress) -> None:
            tell(progress.done + progress.failed, progress.total)

        await runner.run(rollout_id, show)


@dataclass
class _Interruptions:
    """What Ctrl-C does: cancel the rollout in order; the second time, or where it is another's, leave it."""

    settings: Settings
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
        # Imported now that somebody has changed their mind.
        from tenantry.cli.control import control_plane
        from tenantry.kernel.errors import ConflictException
        from tenantry.platform.rollouts import steering

        # Where it has just ended, there is nothing to cancel.
        with contextlib.suppress(ConflictException):
            async with (
                control_plane(self.settings) as control,
                control.database.transaction(control.write_scope) as transaction,
            ):
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


def owner_settings() -> tuple[Settings, str]:
    """The settings, and where the owner logs in.

    Raises:
        SettingsError: they are wrong, or there is no such address.
    """
    settings = complete(load_settings(), owner=True, redis=False)
    if settings.database_owner_url is None:
        raise SettingsError(["TENANTRY_DATABASE_OWNER_URL: expected an address"])
    return settings, settings.database_owner_url.get_secret_value()
