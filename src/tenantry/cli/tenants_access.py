"""`tenantry tenants access`: operators in an organization, by its owners' consent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

import rich_click as click
from advanced_alchemy.filters import LimitOffset, OrderBy

from tenantry.cli.control import control_plane
from tenantry.cli.output import checked, json_option, print_fields, print_json, print_table, quiet_option
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.kernel.schema import normalize_email
from tenantry.kernel.service import to_struct
from tenantry.platform.audit.service import cli_actor
from tenantry.platform.operators.service import OperatorService
from tenantry.platform.tenant_access.models import OperatorAccess
from tenantry.platform.tenant_access.schemas import (
    TenantAccessAsk,
    TenantAccessAsked,
    TenantAccessOpen,
    TenantAccessOpened,
    TenantAccessRead,
)
from tenantry.platform.tenant_access.service import OperatorAccessService

if TYPE_CHECKING:
    from tenantry.cli.control import ControlPlane

__all__ = ("access",)

_MOST_LISTED = 200

_operator_option = click.option(
    "--operator", "email", required=True, help="The address of the operator's account that comes in."
)


@click.group(epilog="Example: tenantry tenants access list acme")
def access() -> None:
    """Come into an organization with its owners' consent, and see who did."""


@access.command(
    "open",
    epilog="Example: tenantry tenants access open acme --operator sue@example.com --reason 'Ticket 4711' --minutes 10",
)
@click.argument("slug")
@_operator_option
@click.option("--reason", required=True, help="Why; the organization's people see it.")
@click.option("--write", is_flag=True, help="To change something; the grant has to say so as well.")
@click.option(
    "--break-glass", is_flag=True, help="Without consent, for emergencies: the owners are told at once, by mail too."
)
@click.option("--minutes", type=click.IntRange(1, 480), help="For how long; by default as long as is allowed.")
@json_option
@quiet_option
def open_access(
    slug: str,
    email: str,
    reason: str,
    write: bool,
    break_glass: bool,
    minutes: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Print a token for the organization's routes under /api, good for some minutes.

    Every request by it is in the organization's audit trail. Ends with 1 where no owner has granted it, or the
    operator's role does not permit it, and with 4 where the organization is not served.
    """
    data = checked(
        TenantAccessOpen, reason=reason, access="write" if write else "read", break_glass=break_glass, minutes=minutes
    )

    async def work() -> TenantAccessOpened:
        async with control_plane() as control:
            await control.tenant(slug)
            opened = await control.tenant_access.open(
                slug,
                operator_id=await _operator_id(control, email),
                actor=cli_actor(),
                reason=data.reason,
                can_write=write,
                break_glass=break_glass,
                minutes=minutes,
            )
            return TenantAccessOpened(
                id=opened.id,
                tenant=opened.tenant.slug,
                access_token=opened.token,
                expires_in=opened.seconds,
                expires_at=opened.expires_at,
                access=data.access,
                break_glass=break_glass,
            )

    opened = asyncio.run(work())
    if as_json:
        print_json(opened)
        return
    click.echo(opened.access_token)
    if not quiet:
        click.echo(f"Good until {opened.expires_at:%H:%M:%S %Z}. End it: {_closing(slug, opened.id)}", err=True)


@access.command(epilog="Example: tenantry tenants access ask acme --operator sue@example.com --reason 'Ticket 4711'")
@click.argument("slug")
@_operator_option
@click.option("--reason", required=True, help="Why; the organization's owners read it.")
@click.option("--write", is_flag=True, help="To change something.")
@click.option("--hours", type=click.IntRange(1, 72), default=24, show_default=True, help="For how long.")
@json_option
@quiet_option
def ask(slug: str, email: str, reason: str, write: bool, hours: int, as_json: bool, quiet: bool) -> None:
    """Ask the organization's owners for access; they are told by mail. Ends with 4 where they were asked already."""
    data = checked(TenantAccessAsk, reason=reason, access="write" if write else "read", hours=hours)

    async def work() -> UUID:
        async with control_plane() as control:
            await control.tenant(slug)
            return await control.tenant_access.ask(
                slug,
                operator_id=await _operator_id(control, email),
                actor=cli_actor(),
                reason=data.reason,
                can_write=write,
                hours=hours,
            )

    asked_id = asyncio.run(work())
    if as_json:
        print_json(TenantAccessAsked(id=asked_id))
    elif not quiet:
        click.echo(f"The owners of {slug} are asked.")


@access.command("list", epilog="Example: tenantry tenants access list acme --json")
@click.argument("slug")
@json_option
def list_access(slug: str, as_json: bool) -> None:
    """List which operators were in the organization, the last ones first; `!` is where the glass was broken."""

    async def work() -> tuple[list[TenantAccessRead], dict[UUID, str]]:
        async with control_plane() as control:
            tenant = await control.tenant(slug)
            async with control.database.transaction(control.read_scope) as transaction:
                rows = await OperatorAccessService(session=transaction.session).get_many(
                    OperatorAccess.tenant_id == tenant.id, OrderBy("created_at", "desc"), LimitOffset(_MOST_LISTED, 0)
                )
                operators = await OperatorService(session=transaction.session).get_many()
                emails = {operator.id: operator.email for operator in operators}
                return [to_struct(row, TenantAccessRead) for row in rows], emails

    rows, emails = asyncio.run(work())
    if as_json:
        print_json(rows)
        return
    print_table(
        ("Id", "Operator", "Access", "Open", "Until", "Reason"),
        (
            (
                row.id,
                emails.get(row.operator_id),
                f"{row.access}!" if row.is_break_glass else row.access,
                "yes" if row.is_open else "no",
                f"{row.closed_at or row.expires_at:%Y-%m-%d %H:%M}",
                row.reason,
            )
            for row in rows
        ),
    )


@access.command(epilog="Example: tenantry tenants access close acme 0197a1b2-0000-7000-8000-000000000000")
@click.argument("slug")
@click.argument("access_id", type=click.UUID)
@json_option
@quiet_option
def close(slug: str, access_id: UUID, as_json: bool, quiet: bool) -> None:
    """End an operator's access: the token is refused from now on. Ends with 3 where there was none of this id."""

    async def work() -> None:
        async with control_plane() as control:
            await control.tenant(slug)
            await control.tenant_access.close(slug, access_id, actor=cli_actor(), operator_id=None)

    asyncio.run(work())
    if as_json:
        print_json({"id": access_id})
    elif not quiet:
        print_fields({"closed": access_id})


async def _operator_id(control: ControlPlane, email: str) -> UUID:
    async with control.database.transaction(control.read_scope) as transaction:
        found = await OperatorService(session=transaction.session).get_one_or_none(
            email=normalize_email(email), is_active=True
        )
    if found is None:
        raise CommandError(f"there is no operator {email}", ExitCode.NOT_FOUND)
    operator_id: UUID = found.id
    return operator_id


def _closing(slug: str, access_id: UUID) -> str:
    return f"tenantry tenants access close {slug} {access_id}"
