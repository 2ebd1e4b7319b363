"""`tenantry jobs`: what waits, runs and is dead in the workers' queues."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import rich_click as click

from tenantry.cli.control import control_plane
from tenantry.cli.output import json_option, print_fields, print_json, print_table, quiet_option
from tenantry.cli.progress import Progress
from tenantry.jobs.ring import Ring
from tenantry.jobs.state import JobStates
from tenantry.kernel.home import complete
from tenantry.kernel.redis import create_redis
from tenantry.kernel.schema import MAX_PAGE_SIZE
from tenantry.kernel.service import ListQuery
from tenantry.kernel.settings import load_settings
from tenantry.platform.audit.service import cli_actor
from tenantry.platform.jobs.service import JobControl
from tenantry.tenancy.wiring import required

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tenantry.platform.jobs.queries import ListedStatus
    from tenantry.platform.jobs.schemas import JobCounts, JobRead

__all__ = ("jobs",)

_tenant_option = click.option("--tenant", metavar="SLUG", help="Only the organization's of this slug.")


@click.group(epilog="Example: tenantry jobs stats")
def jobs() -> None:
    """List, show, retry and cancel jobs, and count them."""


@jobs.command("list", epilog="Example: tenantry jobs list --tenant acme --status dead")
@_tenant_option
@click.option(
    "--status", type=click.Choice(("waiting", "scheduled", "active", "dead")), help="Only those in this state."
)
@click.option("--dead", "status", flag_value="dead", help="The same as --status dead.")
@click.option("--name", help="Only those of this name.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="At most so many.")
@json_option
def list_jobs(tenant: str | None, status: ListedStatus | None, name: str | None, limit: int, as_json: bool) -> None:
    """List jobs that are not done, the newest first.

    `waiting` is for its turn or for its next attempt, `scheduled` not before its time; `dead` has no attempt left, and
    stays until it is retried or cancelled.
    """

    async def work() -> list[JobRead]:
        rows: list[JobRead] = []
        async with _job_control() as control:
            for page in range(1, -(-limit // MAX_PAGE_SIZE) + 1):
                query = ListQuery(page, MAX_PAGE_SIZE, "created_at", "desc", None, ())
                found = await control.page(query, tenant=tenant, status=status, name=name)
                rows += found.items
                if len(rows) >= found.total:
                    break
        return rows[:limit]

    rows = asyncio.run(work())
    if as_json:
        print_json(rows)
        return
    print_table(
        ("Id", "Tenant", "Name", "Status", "Attempts", "Due", "Error"),
        (
            (
                row.id,
                row.tenant,
                row.name,
                row.status,
                f"{row.attempts}/{row.retries}",
                f"{row.due_at:%Y-%m-%d %H:%M:%S}",
                None if row.error is None else row.error[:80],
            )
            for row in rows
        ),
    )


@jobs.command(epilog="Example: tenantry jobs show 019b0c54-6f0e-7cc3-98c4-dc0c0c07398f")
@click.argument("job_id", type=click.UUID, metavar="ID")
@json_option
def show(job_id: UUID, as_json: bool) -> None:
    """Show one job that is not done, with all of its last error.

    Ends with 3 where there is none: it never was, or it is done.
    """

    async def work() -> Any:
        async with _job_control() as control:
            return await control.read(job_id)

    found = asyncio.run(work())
    if as_json:
        print_json(found)
        return
    fields = msgspec.structs.asdict(found)
    del fields["error"]
    traceback = fields.pop("traceback")
    fields["meta"] = ", ".join(f"{name}={value}" for name, value in found.meta.items()) or None
    print_fields({name.replace("_", " "): value for name, value in fields.items()})
    if traceback:
        click.echo(f"\n{traceback.rstrip()}")


@jobs.command(epilog="Example: tenantry jobs retry 019b0c54-6f0e-7cc3-98c4-dc0c0c07398f")
@click.argument("job_id", type=click.UUID, metavar="ID")
@json_option
@quiet_option
def retry(job_id: UUID, as_json: bool, quiet: bool) -> None:
    """Run a dead job again, with all of its attempts.

    Ends with 3 where there is none, with 4 where it is not dead, or another one with its key waits.
    """

    async def work() -> Any:
        async with _job_control() as control:
            return await control.retry(job_id, actor=cli_actor())

    done = asyncio.run(work())
    if as_json:
        print_json(done)
    elif not quiet:
        click.echo(f"{done.name} of {done.tenant or 'the platform'} is {done.status}.")


@jobs.command(epilog="Example: tenantry jobs cancel 019b0c54-6f0e-7cc3-98c4-dc0c0c07398f")
@click.argument("job_id", type=click.UUID, metavar="ID")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="How long its worker gets to stop it.",
)
@json_option
@quiet_option
def cancel(job_id: UUID, wait: float, as_json: bool, quiet: bool) -> None:
    """Cancel a job: one that waits is gone, one at work is stopped and what it wrote rolled back.

    A dead one is forgotten. Ends with 3 where there is none, with 4 where it came to its end first, and with 5 when
    its worker has not stopped it in time: then ask again.
    """

    async def work() -> Any:
        async with _job_control() as control:
            with Progress(quiet=quiet or as_json).step(f"Cancelling {job_id}"):
                return await control.cancel(job_id, actor=cli_actor(), wait=wait)

    done = asyncio.run(work())
    if as_json:
        print_json(done)
    elif not quiet:
        click.echo(f"{done.name} of {done.tenant or 'the platform'} is {done.status}.")


@jobs.command(epilog="Example: tenantry jobs stats --tenant acme --json")
@_tenant_option
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many tenants.")
@json_option
def stats(tenant: str | None, limit: int, as_json: bool) -> None:
    """Count jobs: of each organization those that wait, run and are dead, and the workers that are alive."""

    async def work() -> Any:
        async with _job_control() as control:
            return await control.stats(tenant=tenant, limit=limit)

    found = asyncio.run(work())
    if as_json:
        print_json(found)
        return
    print_table(
        ("Tenant", "Waiting", "Scheduled", "Active", "Dead", "Oldest waits"),
        [
            *((row.tenant or "(platform)", *_counts(row)) for row in found.tenants),
            ("(all)", *_counts(found.total)),
        ],
    )
    click.echo(f"{len(found.workers)} {'worker is' if len(found.workers) == 1 else 'workers are'} alive.")


def _counts(counts: JobCounts) -> tuple[object, ...]:
    oldest = None if counts.oldest_waiting is None else f"{counts.oldest_waiting:,.1f} s"
    return counts.waiting, counts.scheduled, counts.active, counts.dead, oldest


@asynccontextmanager
async def _job_control() -> AsyncIterator[JobControl]:
    settings = complete(load_settings())
    # Patient, unlike the API's: somebody sits there and waits, and nobody else does meanwhile.
    redis = create_redis(required(settings.redis_url), timeout=5.0, max_connections=4)
    try:
        async with control_plane(settings) as control:
            yield JobControl(
                database=control.database,
                read_scope=control.read_scope,
                write_scope=control.write_scope,
                states=JobStates(Ring(redis)),
            )
    finally:
        await redis.aclose()
