"""What the command line tells of rollouts: plans, outcomes, the state of all tenants.

Tables, and with them rich, are imported where one is shown.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import rich_click as click

from tenantry.platform.rollouts.planning import Plan, plan

if TYPE_CHECKING:
    from tenantry.platform.rollouts.planning import Fetch

__all__ = (
    "FailureRead",
    "RevisionRead",
    "RolloutReport",
    "StatusRead",
    "read_report",
    "show_plan",
    "show_report",
    "show_status",
    "status_of",
)

_WIDTH = 300
"""Characters of a statement or an error in a table; `--json` has all of them."""


class FailureRead(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A tenant that was not migrated."""

    slug: str
    attempts: int
    error: str | None
    statement: str | None


class RolloutReport(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What became of a rollout; without an id where none was needed."""

    rollout: UUID | None = None
    target: str
    status: str
    halted_reason: str | None = None
    tenants: int = 0
    done: int = 0
    failed: int = 0
    pending: int = 0
    failures: list[FailureRead] = []


class RevisionRead(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The tenants at one revision; `state` is head, stale or unknown."""

    revision: str
    tenants: int
    state: str


class StatusRead(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What `migrate status --json` prints; the rollout is the latest one."""

    target: str
    revisions: list[RevisionRead]
    provisioning: int
    rollout: RolloutReport | None
    requested_by: str | None = None
    created_at: datetime.datetime | None = None


async def read_report(fetch: Fetch, rollout_id: UUID) -> RolloutReport:
    """What became of it, or has become so far."""
    ((target, status, halted_reason),) = await fetch(
        "SELECT target, status, halted_reason FROM platform.rollout WHERE id = $1", rollout_id
    )
    counted = await fetch(
        "SELECT status, count(*) FROM platform.rollout_tenant WHERE rollout_id = $1 GROUP BY status", rollout_id
    )
    counts: dict[str, int] = dict(counted)
    failed = await fetch(
        "SELECT t.slug, rt.attempts, rt.error, rt.statement"
        "  FROM platform.rollout_tenant rt JOIN platform.tenant t ON t.id = rt.tenant_id"
        " WHERE rt.rollout_id = $1 AND rt.status = 'failed' ORDER BY t.slug",
        rollout_id,
    )
    return RolloutReport(
        rollout=rollout_id,
        target=target,
        status=status,
        halted_reason=halted_reason,
        tenants=sum(counts.values()),
        done=counts.get("done", 0),
        failed=counts.get("failed", 0),
        pending=counts.get("pending", 0),
        failures=[
            FailureRead(slug=slug, attempts=attempts, error=error, statement=statement)
            for slug, attempts, error, statement in failed
        ],
    )


async def status_of(fetch: Fetch) -> StatusRead:
    """Where all tenants are."""
    planned = await plan(fetch)
    latest = await fetch("SELECT id, requested_by, created_at FROM platform.rollout ORDER BY id DESC LIMIT 1")
    found = StatusRead(
        target=planned.target, revisions=_revisions(planned), provisioning=planned.provisioning, rollout=None
    )
    for rollout_id, requested_by, created_at in latest:
        report = await read_report(fetch, UUID(str(rollout_id)))
        found = msgspec.structs.replace(found, rollout=report, requested_by=requested_by, created_at=created_at)
    return found


def _revisions(planned: Plan) -> list[RevisionRead]:
    found = [RevisionRead(revision=group.revision, tenants=group.tenants, state="stale") for group in planned.groups]
    found.append(RevisionRead(revision=planned.target, tenants=planned.current, state="head"))
    found += [RevisionRead(revision=name, tenants=count, state="unknown") for name, count in planned.unknown.items()]
    return found


def show_plan(planned: Plan, *, as_json: bool, quiet: bool) -> None:
    """What would be done, by starting revision."""
    from tenantry.cli.output import print_json, print_table

    if as_json:
        groups: list[dict[str, Any]] = [
            {
                "revision": group.revision,
                "tenants": group.tenants,
                "steps": [
                    {"revision": step.id, "doc": step.doc, "online": step.online, "irreversible": step.irreversible}
                    for step in group.steps
                ],
            }
            for group in planned.groups
        ]
        print_json(
            {
                "target": planned.target,
                "tenants": planned.tenants,
                "current": planned.current,
                "stale": planned.stale,
                "groups": groups,
                "unknown": planned.unknown,
                "provisioning": planned.provisioning,
            }
        )
        return
    if quiet:
        return
    click.echo(f"{planned.current:,} of {planned.tenants:,} tenants are at {planned.target}.")
    if planned.groups:
        print_table(
            ("From", "Tenants", "Steps"),
            (
                (
                    group.revision,
                    f"{group.tenants:,}",
                    "; ".join(f"{step.id} {step.doc}{' (online)' if step.online else ''}" for step in group.steps),
                )
                for group in planned.groups
            ),
        )
    for revision, count in planned.unknown.items():
        click.echo(f"{count:,} are at {revision}, which this release does not know; they are left alone.")


def show_report(report: RolloutReport, *, as_json: bool, quiet: bool) -> None:
    """How it ended; failures on stderr as well where nothing else is to be printed."""
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
        return
    if report.rollout is None:
        if not quiet:
            click.echo(f"Every tenant asked for is at {report.target} already.")
        return
    if not quiet:
        said = f"{report.done:,} of {report.tenants:,} tenants are at {report.target}"
        said += f", {report.failed:,} failed" if report.failed else ""
        said += f", {report.pending:,} are not begun" if report.pending else ""
        click.echo(f"{said}.")
    _show_failures(report, err=quiet)
    if report.status != "done":
        reason = f": {report.halted_reason}" if report.halted_reason else ""
        click.echo(
            f"The rollout is {report.status}{reason}. `tenantry migrate resume {report.rollout}` goes on.", err=True
        )
    elif report.failed:
        click.echo("Repair what is wrong, and run `tenantry migrate tenants` again for those that failed.", err=True)


def _show_failures(report: RolloutReport, *, err: bool = False) -> None:
    if not report.failures:
        return
    if err:
        for failure in report.failures:
            click.echo(f"{failure.slug}: {failure.error} ({_short(failure.statement)})", err=True)
        return
    from rich.table import Table
    from rich.text import Text

    from tenantry.cli.settings import table_console

    table = Table(header_style="bold")
    table.add_column("Tenant", no_wrap=True)
    table.add_column("Attempts", justify="right")
    table.add_column("Error", overflow="fold")
    table.add_column("Statement", overflow="fold")
    for each in report.failures:
        table.add_row(each.slug, str(each.attempts), Text(_short(each.error)), Text(_short(each.statement)))
    table_console().print(table)


def show_status(found: StatusRead) -> None:
    """Where all tenants are, and the latest rollout."""
    from tenantry.cli.output import print_table

    print_table(
        ("Revision", "Tenants", "State"), ((row.revision, f"{row.tenants:,}", row.state) for row in found.revisions)
    )
    if found.provisioning:
        click.echo(f"{found.provisioning:,} are being made.")
    if (rollout := found.rollout) is None:
        click.echo("There has not been any rollout.")
        return
    click.echo(
        f"The latest rollout, {rollout.rollout} to {rollout.target}, started {found.created_at:%Y-%m-%d %H:%M} by "
        f"{found.requested_by}, is {rollout.status}: {rollout.done:,} of {rollout.tenants:,} done, "
        f"{rollout.failed:,} failed, {rollout.pending:,} to go."
        + (f" It was halted since {rollout.halted_reason}." if rollout.halted_reason else "")
    )
    _show_failures(rollout)


def _short(text: str | None) -> str:
    line = " ".join((text or "-").split())
    return line if len(line) <= _WIDTH else f"{line[:_WIDTH]}…"
