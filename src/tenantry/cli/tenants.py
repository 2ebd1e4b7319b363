"""`tenantry tenants`: the organizations of this deployment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import rich_click as click
from advanced_alchemy.filters import OrderBy, SearchFilter

from tenantry.cli.control import control_plane
from tenantry.cli.output import (
    checked,
    json_option,
    mail_option,
    print_fields,
    print_json,
    print_table,
    quiet_option,
    read_secret,
)
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.cli.tenants_access import access
from tenantry.cli.tenants_data import export, import_tenant
from tenantry.cli.tenants_deletion import delete, purge, undelete
from tenantry.cli.tenants_lifecycle import archive, clone, restore
from tenantry.cli.tenants_limits import limits
from tenantry.cli.tenants_verify import verify
from tenantry.features import USAGE_HOOKS
from tenantry.kernel.schema import changes
from tenantry.kernel.service import to_struct
from tenantry.platform.audit.service import cli_actor
from tenantry.platform.tenants.schemas import SuspendPayload, TenantCreate, TenantRead, TenantUpdate
from tenantry.platform.tenants.service import TenantService, in_state
from tenantry.platform.tenants.usage import TenantUsage, read_usage
from tenantry.tenancy.models import TENANT_STATES, Tenant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ("tenants",)


class TenantCreatedRead(TenantRead):
    """What `create --json` prints: the API's answer, and whether the provisioner has finished."""

    owner_invitation: str | None
    operation_id: str | None
    """None where a warm schema was taken."""
    done: bool


@click.group(epilog="Example: tenantry tenants list --status active")
def tenants() -> None:
    """Create, list and change tenants."""


@tenants.command(
    epilog="Example: tenantry tenants create acme --name 'Acme Corporation' --plan team --owner-email ann@acme.example"
)
@click.argument("slug")
@click.option("--name", required=True, help="The organization's name.")
@click.option("--plan", required=True, help="A plan's slug.")
@click.option("--owner-email", required=True, help="Address of the first user, who owns the organization.")
@click.option("--owner-name", help="Their name.")
@click.option(
    "--owner-password-stdin", is_flag=True, help="Read their password from stdin; without it they are invited."
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long to wait for the provisioner; by default TENANTRY_PROVISION_WAIT.",
)
@mail_option
@json_option
@quiet_option
def create(
    slug: str,
    name: str,
    plan: str,
    owner_email: str,
    owner_name: str | None,
    owner_password_stdin: bool,
    wait: float | None,
    mail: bool,
    as_json: bool,
    quiet: bool,
) -> ExitCode:
    """Create a tenant with its owner.

    SLUG is its short name, the first label of its host name. Without a password an invitation is printed, with which
    the owner sets one (POST /api/auth/invitations/accept); it is shown once, and good for one use. With --mail it is
    sent to them and shown to nobody else. Ends with 5 when the provisioner has not finished in time: then it will, as
    soon as one runs.
    """
    password = read_secret("The owner's password", confirm=True) if owner_password_stdin else None
    data = checked(
        TenantCreate,
        slug=slug,
        name=name,
        plan=plan,
        owner_email=owner_email,
        owner_name=owner_name,
        owner_password=password,
    )
    if mail and password is not None:
        raise CommandError("with a password there is no invitation to --mail: give one of them", ExitCode.USAGE)
    if quiet and password is None and not (as_json or mail):
        raise CommandError("--quiet would not show the owner's invitation: give a password, or --mail", ExitCode.USAGE)

    async def work() -> TenantCreatedRead:
        async with control_plane() as control:
            if mail:
                control.require_mail()
            made = await control.creator.create(
                slug=data.slug,
                name=data.name,
                plan=data.plan,
                owner_email=data.owner_email,
                owner_name=data.owner_name,
                owner_password=data.owner_password,
                requested_by=cli_actor(),
                wait=wait,
                mail_invitation=mail,
            )
        return TenantCreatedRead(
            **_fields(made.tenant),
            owner_invitation=None if made.is_mailed else made.invitation,
            operation_id=None if made.operation_id is None else str(made.operation_id),
            done=made.done,
        )

    made = asyncio.run(work())
    if as_json:
        print_json(made)
    elif not quiet:
        click.echo(f"{made.slug} is {made.status}." if made.done else f"{made.slug} is recorded.")
        if made.owner_invitation is not None:
            click.echo(f"The owner's invitation, shown once: {made.owner_invitation}")
        elif mail:
            click.echo(f"{made.owner_email} is mailed their invitation.")
    if not made.done:
        click.echo("The provisioner has not finished yet; does it run? (`tenantry provisioner`)", err=True)
        return ExitCode.UNAVAILABLE
    return ExitCode.OK


@tenants.command("list", epilog="Example: tenantry tenants list --plan free --search corp --json")
@click.option("--status", type=click.Choice(TENANT_STATES), help="Only those in this state.")
@click.option("--plan", help="Only those on this plan.")
@click.option("--search", help="Only those with this text in slug, name or owner's address.")
@json_option
def list_tenants(status: str | None, plan: str | None, search: str | None, as_json: bool) -> None:
    """List tenants, by slug; what is left of purged ones only with --status purged."""
    filters: list[Any] = [OrderBy("slug"), in_state(status)]
    if search:
        filters.append(SearchFilter({"slug", "name", "owner_email"}, search, ignore_case=True, escape_wildcards=True))
    if plan is not None:
        filters.append(Tenant.plan == plan)

    async def work() -> list[TenantRead]:
        async with control_plane() as control, control.database.transaction(control.read_scope) as transaction:
            found = await TenantService(session=transaction.session).get_many(*filters)
            return [to_struct(row, TenantRead) for row in found]

    rows = asyncio.run(work())
    if as_json:
        print_json(rows)
        return
    print_table(
        ("Slug", "Name", "Status", "Plan", "Owner", "Created"),
        (
            (row.slug, row.name, row.status, row.plan, row.owner_email, f"{row.created_at:%Y-%m-%d %H:%M}")
            for row in rows
        ),
    )


@tenants.command(epilog="Example: tenantry tenants show acme --json")
@click.argument("slug")
@json_option
def show(slug: str, as_json: bool) -> None:
    """Show one tenant: its state, plan and revision, its size, users and last activity, and what is pending for it."""

    async def work() -> tuple[TenantRead, TenantUsage]:
        async with control_plane() as control:
            tenant = await control.tenant(slug)
            usage = await read_usage(
                control.context(tenant), database=control.database, read_scope=control.read_scope, hooks=USAGE_HOOKS
            )
            return to_struct(tenant, TenantRead), usage

    tenant, usage = asyncio.run(work())
    if as_json:
        print_json(msgspec.to_builtins(tenant) | {"usage": msgspec.to_builtins(usage)})
        return
    shown = {name.replace("_", " "): getattr(tenant, name) for name in tenant.__struct_fields__}
    shown |= {name.replace("_", " "): getattr(usage, name) for name in usage.__struct_fields__}
    print_fields(shown | {"size": f"{usage.size / 1024:,.0f} KiB"})


@tenants.command(epilog="Example: tenantry tenants suspend acme --reason 'Invoice 17 is unpaid'")
@click.argument("slug")
@click.option("--reason", help="Why; operators see it, and so does who is refused.")
@json_option
@quiet_option
def suspend(slug: str, reason: str | None, as_json: bool, quiet: bool) -> None:
    """Refuse a tenant's requests, in every process within a second; its data stay.

    Ends with 4 where it is not active.
    """
    payload = checked(SuspendPayload, reason=reason)
    _change(lambda service: service.suspend(slug, payload.reason, actor=cli_actor()), as_json=as_json, quiet=quiet)


@tenants.command(epilog="Example: tenantry tenants resume acme")
@click.argument("slug")
@json_option
@quiet_option
def resume(slug: str, as_json: bool, quiet: bool) -> None:
    """Serve a suspended tenant again.

    Ends with 4 where it is not suspended.
    """
    _change(lambda service: service.resume(slug, actor=cli_actor()), as_json=as_json, quiet=quiet)


@tenants.command(epilog="Example: tenantry tenants update acme --plan enterprise")
@click.argument("slug")
@click.option("--name", help="Another name.")
@click.option("--plan", help="Another plan.")
@click.option("--slug", "new_slug", help="Another slug: links and host names of the old one stop to work.")
@json_option
@quiet_option
def update(slug: str, name: str | None, plan: str | None, new_slug: str | None, as_json: bool, quiet: bool) -> None:
    """Rename a tenant, or move it to another plan; its schema and its data stay as they are."""
    data = checked(TenantUpdate, name=name, plan=plan, slug=new_slug)
    if not changes(data):
        raise CommandError("nothing to change: give --name, --plan or --slug", ExitCode.USAGE)
    _change(lambda service: service.change(slug, changes(data), actor=cli_actor()), as_json=as_json, quiet=quiet)


@tenants.command(epilog="Example: tenantry tenants rename acme acme-corp")
@click.argument("slug")
@click.argument("new_slug")
@json_option
@quiet_option
def rename(slug: str, new_slug: str, as_json: bool, quiet: bool) -> None:
    """Give a tenant another slug: links and host names of the old one stop to work, its tokens and data stay good."""
    data = checked(TenantUpdate, slug=new_slug)
    _change(lambda service: service.change(slug, changes(data), actor=cli_actor()), as_json=as_json, quiet=quiet)


@tenants.command(epilog="Example: tenantry tenants move acme --plan enterprise")
@click.argument("slug")
@click.option("--plan", required=True, help="The plan's slug.")
@json_option
@quiet_option
def move(slug: str, plan: str, as_json: bool, quiet: bool) -> None:
    """Move a tenant to another plan; within a second it is served by that plan's limits."""
    data = checked(TenantUpdate, plan=plan)
    _change(lambda service: service.change(slug, changes(data), actor=cli_actor()), as_json=as_json, quiet=quiet)


def _change(change: Callable[[TenantService], Awaitable[Tenant]], *, as_json: bool, quiet: bool) -> None:
    async def work() -> TenantRead:
        async with control_plane() as control, control.database.transaction(control.write_scope) as transaction:
            return to_struct(await change(TenantService(session=transaction.session)), TenantRead)

    tenant = asyncio.run(work())
    if as_json:
        print_json(tenant)
    elif not quiet:
        click.echo(f"{tenant.slug} ({tenant.name}) is {tenant.status}, on the plan {tenant.plan}.")


def _fields(tenant: Tenant) -> dict[str, Any]:
    return {name: getattr(tenant, name) for name in TenantRead.__struct_fields__}


for _command in (access, archive, restore, clone, export, import_tenant, delete, undelete, purge, verify, limits):
    tenants.add_command(_command)
