"""`tenantry tenants delete`, `undelete` and `purge`."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import rich_click as click

from tenantry.cli.control import control_plane
from tenantry.cli.output import checked, json_option, print_json, quiet_option
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.cli.progress import Progress
from tenantry.kernel.service import to_struct
from tenantry.platform.audit.service import cli_actor
from tenantry.platform.deletion.schemas import CertificateRead
from tenantry.platform.deletion.service import DeletionService, Purge, Purger
from tenantry.platform.provisioning.schemas import OperationRead
from tenantry.platform.tenants.schemas import SuspendPayload, TenantRead

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tenantry.tenancy.models import Tenant

__all__ = ("delete", "purge", "undelete")

_yes_option = click.option("--yes", is_flag=True, help="Do not ask for the slug to be typed once more.")
_LONGEST = 315_360_000  # ten years, as in the setting


def confirm_slug(slug: str, warning: str, *, yes: bool) -> None:
    """Have the slug typed once more; `yes` stands for it.

    Raises:
        CommandError: there is no terminal to ask at, or something else was typed.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError("there is no terminal to ask at: give --yes", ExitCode.USAGE)
    click.echo(warning, err=True)
    # On stderr, so that `--json` leaves stdout to the answer.
    if click.prompt(f"Type {slug} to go on", err=True, default="", show_default=False) != slug:
        raise CommandError("that is not its slug: nothing was done")


@click.command(epilog="Example: tenantry tenants delete acme --reason 'Contract ended' --grace 604800 --yes")
@click.argument("slug")
@click.option("--reason", help="Why; operators see it, and the certificate of the purge says it.")
@click.option(
    "--grace",
    type=click.IntRange(0, _LONGEST),
    metavar="SECONDS",
    help="How long it can be undeleted; by default TENANTRY_DELETION_GRACE.",
)
@_yes_option
@json_option
@quiet_option
def delete(slug: str, reason: str | None, grace: int | None, yes: bool, as_json: bool, quiet: bool) -> None:
    """Delete a tenant: its requests are refused within a second, its data are purged when its grace time is over.

    Until then `tenantry tenants undelete` brings all of it back. Ends with 4 where its state does not allow it.
    """
    payload = checked(SuspendPayload, reason=reason)

    async def work() -> TenantRead:
        async with control_plane() as control:
            await control.tenant(slug)
            seconds = control.settings.deletion_grace if grace is None else grace
            confirm_slug(slug, f"{slug} will be refused at once, and purged in {_span(seconds)}.", yes=yes)
            async with control.database.transaction(control.write_scope) as transaction:
                service = DeletionService(session=transaction.session)
                return to_struct(
                    await service.delete_tenant(slug, payload.reason, actor=cli_actor(), grace=seconds), TenantRead
                )

    tenant = asyncio.run(work())
    if as_json:
        print_json(tenant)
    elif not quiet:
        click.echo(f"{tenant.slug} is deleted. It will be purged at {tenant.purge_after:%Y-%m-%d %H:%M:%S %Z}.")


@click.command(epilog="Example: tenantry tenants undelete acme")
@click.argument("slug")
@json_option
@quiet_option
def undelete(slug: str, as_json: bool, quiet: bool) -> None:
    """Bring a deleted tenant back as it was.

    Ends with 4 where it is not deleted, or its purge has been asked for.
    """
    tenant = asyncio.run(_in_transaction(lambda service: service.undelete(slug, actor=cli_actor())))
    if as_json:
        print_json(tenant)
    elif not quiet:
        click.echo(f"{tenant.slug} is {tenant.status}.")


@click.command(epilog="Example: tenantry tenants purge acme --reason 'Erasure was asked for' --yes --json > acme.json")
@click.argument("slug")
@click.option("--reason", help="Why; the certificate says it.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long to wait for the provisioner; by default TENANTRY_PROVISION_WAIT.",
)
@click.option("--no-wait", is_flag=True, help="Do not wait: the purge is recorded, and carried out later.")
@_yes_option
@json_option
@quiet_option
def purge(
    slug: str, reason: str | None, wait: float | None, no_wait: bool, yes: bool, as_json: bool, quiet: bool
) -> ExitCode:
    """Remove all of a tenant, now and for good: schema, role, Redis keys, queue and files.

    One that is not deleted is deleted first. What is left is a certificate of what was removed, which is printed; keep
    it, and the key's thumbprint with it (`tenantry certificates verify`). Ends with 4 where its state does not allow
    it, and with 5 when the provisioner has not finished in time: then it will, as soon as one runs.
    """
    if no_wait and wait is not None:
        raise CommandError("--wait and --no-wait contradict each other", ExitCode.USAGE)
    payload = checked(SuspendPayload, reason=reason)

    async def work() -> Purge:
        async with control_plane() as control:
            await control.tenant(slug)
            confirm_slug(slug, f"All data of {slug} will be removed. There is no way back.", yes=yes)
            purger = Purger(
                database=control.database,
                read_scope=control.read_scope,
                write_scope=control.write_scope,
                settings=control.settings,
            )
            with Progress(quiet=quiet).step(f"Purging {slug}"):
                return await purger.purge(
                    slug, payload.reason, actor=cli_actor(), confirm=slug, wait=0 if no_wait else wait
                )

    done = asyncio.run(work())
    if done.certificate is None:
        if as_json:
            print_json(to_struct(done.operation, OperationRead))
        elif not quiet:
            click.echo(f"The purge of {slug} is recorded as the operation {done.operation.id}.")
        if no_wait:
            return ExitCode.OK
        click.echo("The provisioner has not finished yet; does it run? (`tenantry provisioner`)", err=True)
        return ExitCode.UNAVAILABLE
    if as_json:
        print_json(to_struct(done.certificate, CertificateRead))
    elif not quiet:
        click.echo(f"{slug} is purged. Its certificate: tenantry certificates show {done.certificate.tenant_id}")
    return ExitCode.OK


async def _in_transaction(act: Callable[[DeletionService], Awaitable[Tenant]]) -> TenantRead:
    async with control_plane() as control, control.database.transaction(control.write_scope) as transaction:
        return to_struct(await act(DeletionService(session=transaction.session)), TenantRead)


def _span(seconds: int) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"
