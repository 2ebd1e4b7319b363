"""`tenantry schedules`: the jobs that come back by the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import rich_click as click

from tenantry.cli.control import control_plane
from tenantry.cli.output import checked, json_option, print_fields, print_json, print_table, quiet_option
from tenantry.kernel.schema import MAX_PAGE_SIZE, changes
from tenantry.kernel.service import ListQuery
from tenantry.platform.audit.service import cli_actor
from tenantry.platform.schedules.schemas import ScheduleRun, ScheduleUpdate, TenantSchedules, TimeZoneUpdate
from tenantry.platform.schedules.service import ScheduleControl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tenantry.platform.schedules.schemas import ScheduleRead

__all__ = ("schedules",)

T = TypeVar("T")

_tenant_option = click.option("--tenant", metavar="SLUG", help="The organization's of this slug.")
_platform_option = click.option("--platform", is_flag=True, help="The platform's own.")


@click.group(epilog="Example: tenantry schedules list --tenant acme")
def schedules() -> None:
    """List, show, change and run schedules, by which jobs come back."""


@schedules.command("list", epilog="Example: tenantry schedules list --tenant acme --disabled")
@_tenant_option
@_platform_option
@click.option("--name", help="Only those of this job.")
@click.option("--enabled/--disabled", default=None, help="Only those that are switched on, or off.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="At most so many.")
@json_option
def list_schedules(
    tenant: str | None, platform: bool, name: str | None, enabled: bool | None, limit: int, as_json: bool
) -> None:
    """List schedules, of all organizations and of the platform, the next that is due first.

    One without a crontab line is of another release; it rests until that is back.
    """
    if tenant is not None and platform:
        raise click.UsageError("The platform's schedules are no organization's: give --tenant or --platform.")

    async def work() -> list[ScheduleRead]:
        rows: list[ScheduleRead] = []
        async with _control(writing=False) as control:
            for page in range(1, -(-limit // MAX_PAGE_SIZE) + 1):
                query = ListQuery(page, MAX_PAGE_SIZE, "next_run_at", "asc", None, ())
                found = await control.page(query, tenant=tenant, platform=platform, name=name, enabled=enabled)
                rows += found.items
                if len(rows) >= found.total:
                    break
        return rows[:limit]

    rows = asyncio.run(work())
    if as_json:
        print_json(rows)
    else:
        _print(rows)


@schedules.command(epilog="Example: tenantry schedules show --tenant acme seal_audit")
@_tenant_option
@_platform_option
@click.argument("name")
@json_option
def show(tenant: str | None, platform: bool, name: str, as_json: bool) -> None:
    """Show one schedule: of an organization, or of the platform."""
    whose = _one(tenant, platform)
    found = _do(lambda control: control.read(whose, name), writing=False)
    if as_json:
        print_json(found)
        return
    print_fields({field.replace("_", " "): value for field, value in msgspec.structs.asdict(found).items()})


@schedules.command(epilog="Example: tenantry schedules enable --tenant acme forget_old_invitations")
@_tenant_option
@_platform_option
@click.argument("name")
@json_option
@quiet_option
def enable(tenant: str | None, platform: bool, name: str, as_json: bool, quiet: bool) -> None:
    """Switch a schedule on. What was missed while it was off stays missed."""
    _change(tenant, platform, name, ScheduleUpdate(enabled=True), as_json=as_json, quiet=quiet)


@schedules.command(epilog="Example: tenantry schedules disable --platform measure_catalog")
@_tenant_option
@_platform_option
@click.argument("name")
@json_option
@quiet_option
def disable(tenant: str | None, platform: bool, name: str, as_json: bool, quiet: bool) -> None:
    """Switch a schedule off, until it is switched on again. A job that it has enqueued already stays."""
    _change(tenant, platform, name, ScheduleUpdate(enabled=False), as_json=as_json, quiet=quiet)


@schedules.command("set-timezone", epilog="Example: tenantry schedules set-timezone --tenant acme --all Europe/Berlin")
@_tenant_option
@_platform_option
@click.option("--all", "every", is_flag=True, help="All of the organization's, and those that it is going to get.")
@click.argument("words", nargs=-1, required=True, metavar="[NAME] ZONE")
@json_option
@quiet_option
def set_timezone(
    tenant: str | None, platform: bool, every: bool, words: Sequence[str], as_json: bool, quiet: bool
) -> None:
    """Have a schedule follow the clock of a time zone (an IANA name): of NAME, or with --all of an organization."""
    whose = _one(tenant, platform)
    if len(words) != (1 if every else 2):
        raise click.UsageError("Expected --all and a time zone, or a schedule's name and a time zone.")
    *names, zone = words
    if names:
        update = checked(ScheduleUpdate, time_zone=zone)
        _change(tenant, platform, names[0], update, as_json=as_json, quiet=quiet)
        return
    if whose is None:
        raise click.UsageError("--all is for an organization: give --tenant.")
    wanted = checked(TimeZoneUpdate, time_zone=zone).time_zone
    rows = _do(lambda control: control.set_timezone(whose, wanted, actor=cli_actor()))
    if as_json:
        print_json(TenantSchedules(items=rows))
    elif not quiet:
        _print(rows)


@schedules.command(epilog="Example: tenantry schedules run --tenant acme seal_audit")
@_tenant_option
@_platform_option
@click.argument("name")
@json_option
@quiet_option
def run(tenant: str | None, platform: bool, name: str, as_json: bool, quiet: bool) -> None:
    """Have a schedule's job run now, also one that is switched off; the clock goes on as before.

    While one waits or runs already, it is that one. `tenantry jobs show ID` follows it.
    """
    whose = _one(tenant, platform)
    job_id, made = _do(lambda control: control.run(whose, name, actor=cli_actor()))
    if as_json:
        print_json(ScheduleRun(job_id=job_id, already_waiting=not made))
    elif not quiet:
        state = "is enqueued" if made else "waits or runs already"
        click.echo(f"{name} of {whose or 'the platform'} {state}: {job_id}")


def _one(tenant: str | None, platform: bool) -> str | None:
    """Whose schedule: a slug, or None for the platform's."""
    if (tenant is None) != platform:
        raise click.UsageError("Whose schedule? Give --tenant SLUG or --platform.")
    return tenant


def _change(
    tenant: str | None, platform: bool, name: str, update: ScheduleUpdate, *, as_json: bool, quiet: bool
) -> None:
    whose = _one(tenant, platform)
    row = _do(lambda control: control.change(whose, name, changes(update), actor=cli_actor()))
    if as_json:
        print_json(row)
    elif not quiet:
        state = f"due next at {_moment(row)}" if row.enabled else "switched off"
        click.echo(f"{row.name} of {row.tenant or 'the platform'} is {state}, in {row.time_zone}.")


def _do(act: Callable[[ScheduleControl], Awaitable[T]], *, writing: bool = True) -> T:
    async def work() -> T:
        async with _control(writing=writing) as control:
            return await act(control)

    return asyncio.run(work())


def _print(rows: Sequence[ScheduleRead]) -> None:
    print_table(
        ("Tenant", "Name", "Enabled", "Cron", "Time zone", "Next", "Last"),
        (
            (
                row.tenant or "(platform)",
                row.name,
                "yes" if row.enabled else "no",
                row.cron,
                row.time_zone,
                _moment(row) if row.enabled and row.cron is not None else None,
                None if row.last_run_at is None else f"{row.last_run_at:%Y-%m-%d %H:%M}",
            )
            for row in rows
        ),
    )


def _moment(row: ScheduleRead) -> str:
    return f"{row.next_run_at:%Y-%m-%d %H:%M}"


@asynccontextmanager
async def _control(*, writing: bool) -> AsyncIterator[ScheduleControl]:
    # All the domains: an overview of commands need not wait for them.
    from tenantry.features import SCHEDULES

    known: dict[str, Any] = {schedule.name: schedule for schedule in SCHEDULES}
    async with control_plane() as control:
        scope = control.write_scope if writing else control.read_scope
        async with control.database.transaction(scope) as transaction:
            yield ScheduleControl(transaction.session, known)
