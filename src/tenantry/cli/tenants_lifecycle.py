"""`tenantry tenants archive`, `restore` and `clone`, and what all that waits for the provisioner has in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import rich_click as click

from tenantry.cli.control import control_plane
from tenantry.cli.output import checked, json_option, print_json, quiet_option, read_secret
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.cli.progress import Progress
from tenantry.cli.tenants_deletion import confirm_slug
from tenantry.cli.transfer import size_of
from tenantry.kernel.service import to_struct
from tenantry.platform.audit.service import cli_actor
from tenantry.platform.lifecycle.schemas import ArchivePayload, TenantClone
from tenantry.platform.lifecycle.service import NewTenant
from tenantry.platform.provisioning.schemas import OperationRead
from tenantry.platform.tenants.lifecycle import require_state
from tenantry.platform.tenants.schemas import TenantCreated, TenantRead

if TYPE_CHECKING:
    from tenantry.platform.lifecycle.service import Outcome
    from tenantry.platform.provisioning.models import Operation

__all__ = (
    "archive",
    "clone",
    "new_tenant_options",
    "print_made",
    "read_owner_password",
    "restore",
    "seconds_to_wait",
    "unfinished",
    "wait_options",
)

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


class TenantMadeRead(TenantCreated):
    """What `clone --json` and `import --json` print: the API's answer, and whether the provisioner has finished."""

    operation_id: UUID
    done: bool


def wait_options(command: CommandT) -> CommandT:
    """`--wait` and `--no-wait`."""
    wait = click.option(
        "--wait",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="How long to wait for the provisioner; by default TENANTRY_PROVISION_WAIT.",
    )
    no_wait = click.option("--no-wait", is_flag=True, help="Do not wait: it is recorded, and carried out later.")
    return wait(no_wait(command))


def seconds_to_wait(wait: float | None, *, no_wait: bool) -> float | None:
    """For the service; None for the deployment's setting.

    Raises:
        CommandError: both were given.
    """
    if no_wait and wait is not None:
        raise CommandError("--wait and --no-wait contradict each other", ExitCode.USAGE)
    return 0 if no_wait else wait


def new_tenant_options(*, source: str, owner_required: bool) -> Callable[[CommandT], CommandT]:
    """What a tenant that is made of another's rows is to be; `source` is where the rest comes from."""
    options = (
        click.option("--name", help=f"Its name; by default that of {source}."),
        click.option("--plan", help=f"A plan's slug; by default that of {source}."),
        click.option(
            "--owner-email",
            required=owner_required,
            help="Address of an owner: of the user who has it, or else of a new one.",
        ),
        click.option("--owner-name", help="Their name."),
        click.option(
            "--owner-password-stdin", is_flag=True, help="Read their password from stdin; without it they are invited."
        ),
    )

    def add(command: CommandT) -> CommandT:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def read_owner_password(owner_email: str | None, *, from_stdin: bool, shown: bool) -> str | None:
    """The owner's password, if one is given; `shown` says whether an invitation would be.

    Raises:
        CommandError: it would not, and somebody could not log in.
    """
    if from_stdin:
        return read_secret("The owner's password", confirm=True)
    if owner_email is not None and not shown:
        raise CommandError("--quiet would not show the owner's invitation: give a password", ExitCode.USAGE)
    return None


def unfinished(operation: Operation, text: str, *, no_wait: bool, as_json: bool, quiet: bool) -> ExitCode:
    """Say that it is recorded; how the command ends."""
    if as_json:
        print_json(to_struct(operation, OperationRead))
    elif not quiet:
        click.echo(f"{text} is recorded as the operation {operation.id}.")
    return _waited(no_wait=no_wait)


def print_made(outcome: Outcome, text: str, *, no_wait: bool, as_json: bool, quiet: bool) -> ExitCode:
    """Show a tenant that was made of another's rows, and how its owner gets in; how the command ends."""
    tenant = outcome.tenant
    if as_json:
        print_json(
            TenantMadeRead(
                **{name: getattr(tenant, name) for name in TenantRead.__struct_fields__},
                owner_invitation=outcome.invitation,
                operation_id=outcome.operation.id,
                done=outcome.done,
            )
        )
    elif not quiet:
        if outcome.done:
            rows = (outcome.operation.result or {}).get("rows", 0)
            click.echo(f"{tenant.slug} is {tenant.status}, with {rows:,} rows {text}.")
        else:
            click.echo(f"{tenant.slug} is recorded, as the operation {outcome.operation.id}.")
        # Also where it is not done yet: it is shown once.
        if outcome.invitation is not None:
            click.echo(f"The owner's invitation, shown once: {outcome.invitation}")
    return ExitCode.OK if outcome.done else _waited(no_wait=no_wait)


def _waited(*, no_wait: bool) -> ExitCode:
    if no_wait:
        return ExitCode.OK
    click.echo("The provisioner has not finished yet; does it run? (`tenantry provisioner`)", err=True)
    return ExitCode.UNAVAILABLE


@click.command(epilog="Example: tenantry tenants archive acme --reason 'Paused until spring' --wait 600 --yes")
@click.argument("slug")
@click.option("--reason", help="Why; operators see it, and so does who is refused.")
@wait_options
@click.option("--yes", is_flag=True, help="Do not ask for the slug to be typed once more.")
@json_option
@quiet_option
def archive(
    slug: str, reason: str | None, wait: float | None, no_wait: bool, yes: bool, as_json: bool, quiet: bool
) -> ExitCode:
    """Move a tenant's data into the storage: its requests are refused within a second, and its schema is dropped.

    Not before the archive was read back and compared with the tables. `tenantry tenants restore` brings all of it
    back. Ends with 4 where its state does not allow it, and with 5 when the provisioner has not finished in time: then
    it will, as soon as one runs.
    """
    seconds = seconds_to_wait(wait, no_wait=no_wait)
    payload = checked(ArchivePayload, reason=reason)

    async def work() -> Outcome:
        async with control_plane() as control:
            # Before the slug is typed for nothing; the service looks again, in its transaction.
            require_state(await control.tenant(slug), "archive")
            confirm_slug(slug, f"{slug} will be refused at once, until it is restored.", yes=yes)
            with Progress(quiet=quiet).step(f"Archiving {slug}"):
                return await control.lifecycle.archive(slug, payload.reason, actor=cli_actor(), wait=seconds)

    outcome = asyncio.run(work())
    if not outcome.done:
        text = f"{slug} is refused. Its archive"
        return unfinished(outcome.operation, text, no_wait=no_wait, as_json=as_json, quiet=quiet)
    if as_json:
        print_json(to_struct(outcome.tenant, TenantRead))
    elif not quiet:
        result = outcome.operation.result or {}
        click.echo(f"{slug} is archived: {result['rows']:,} rows, {size_of(result['bytes'])}, as {result['key']}.")
    return ExitCode.OK


@click.command(epilog="Example: tenantry tenants restore acme --wait 600")
@click.argument("slug")
@wait_options
@json_option
@quiet_option
def restore(slug: str, wait: float | None, no_wait: bool, as_json: bool, quiet: bool) -> ExitCode:
    """Bring an archived tenant's data back, migrate them to this release's revision, and serve it again.

    Ends with 4 where it is not archived, and with 5 when the provisioner has not finished in time: then it will, as
    soon as one runs.
    """
    seconds = seconds_to_wait(wait, no_wait=no_wait)

    async def work() -> Outcome:
        async with control_plane() as control:
            require_state(await control.tenant(slug), "restore")
            with Progress(quiet=quiet).step(f"Restoring {slug}"):
                return await control.lifecycle.restore(slug, actor=cli_actor(), wait=seconds)

    outcome = asyncio.run(work())
    if not outcome.done:
        return unfinished(outcome.operation, f"Restoring {slug}", no_wait=no_wait, as_json=as_json, quiet=quiet)
    if as_json:
        print_json(to_struct(outcome.tenant, TenantRead))
    elif not quiet:
        click.echo(f"{slug} is {outcome.tenant.status}, at the revision {outcome.tenant.revision}.")
    return ExitCode.OK


@click.command(epilog="Example: tenantry tenants clone acme acme-sandbox --owner-email dev@example.com")
@click.argument("slug")
@click.argument("new_slug")
@new_tenant_options(source="SLUG", owner_required=False)
@click.option(
    "--mask-emails/--no-mask-emails",
    default=True,
    show_default=True,
    help="Replace addresses and names of people, and leave their passwords out; --owner-email is then required.",
)
@wait_options
@json_option
@quiet_option
def clone(
    slug: str,
    new_slug: str,
    name: str | None,
    plan: str | None,
    owner_email: str | None,
    owner_name: str | None,
    owner_password_stdin: bool,
    mask_emails: bool,
    wait: float | None,
    no_wait: bool,
    as_json: bool,
    quiet: bool,
) -> ExitCode:
    """Make a tenant with the rows of another as they are at this moment; that one is served meanwhile.

    Sessions, refresh tokens and invitations stay behind. With --no-mask-emails everybody can log in to the copy as
    they do to the original. Ends with 4 where the state of SLUG does not allow it or NEW_SLUG is taken, and with 5 when
    the provisioner has not finished in time: then it will, as soon as one runs.
    """
    seconds = seconds_to_wait(wait, no_wait=no_wait)
    password = read_owner_password(owner_email, from_stdin=owner_password_stdin, shown=as_json or not quiet)

    async def work() -> Outcome:
        async with control_plane() as control:
            source = await control.tenant(slug)
            require_state(source, "clone")
            data = checked(
                TenantClone,
                slug=new_slug,
                name=source.name if name is None else name,
                mask_emails=mask_emails,
                plan=plan,
                owner_email=owner_email,
                owner_password=password,
                owner_name=owner_name,
            )
            new = NewTenant.of(data)
            with Progress(quiet=quiet).step(f"Cloning {slug}"):
                return await control.lifecycle.clone(slug, new, mask=data.mask_emails, actor=cli_actor(), wait=seconds)

    return print_made(asyncio.run(work()), f"of {slug}", no_wait=no_wait, as_json=as_json, quiet=quiet)
