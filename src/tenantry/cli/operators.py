"""`tenantry operators`: the people who run the platform."""

from __future__ import annotations

import asyncio
import datetime
import sys
from uuid import UUID

import rich_click as click
from advanced_alchemy.filters import OrderBy

from tenantry.cli.control import control_plane
from tenantry.cli.output import checked, json_option, print_json, print_table, quiet_option, read_secret
from tenantry.domain.identity.passwords import check_new_password
from tenantry.kernel.schema import BaseStruct
from tenantry.kernel.service import to_struct
from tenantry.kernel.settings import load_settings
from tenantry.platform.operators.models import OPERATOR_ROLES
from tenantry.platform.operators.schemas import OperatorLoginPayload
from tenantry.platform.operators.service import OperatorService

__all__ = ("operators",)


class OperatorRead(BaseStruct):
    """An operator's account, as it is printed."""

    id: UUID
    email: str
    role: str
    is_active: bool
    last_login_at: datetime.datetime | None
    created_at: datetime.datetime


@click.group(epilog="Example: tenantry operators list")
def operators() -> None:
    """Create and list the people who run the platform."""


@operators.command(
    epilog="Example: tenantry operators create ops@example.com --role operator --password-stdin < password"
)
@click.argument("email")
@click.option(
    "--role",
    type=click.Choice(OPERATOR_ROLES),
    required=True,
    help="owner: everything; operator: tenants and rollouts; support: looks, suspends and resumes; auditor: looks, and "
    "reads the audit trail.",
)
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin; without it, it is asked for.")
@json_option
@quiet_option
def create(email: str, role: str, password_stdin: bool, as_json: bool, quiet: bool) -> None:
    """Create an operator's account, for POST /platform/auth/login.

    Ends with 4 where the address has one already.
    """
    settings = load_settings()
    if not password_stdin and not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask for the password: give --password-stdin.")
    data = checked(OperatorLoginPayload, email=email, password=read_secret("The operator's password", confirm=True))
    check_new_password(settings, data.password, email=data.email)

    async def work() -> OperatorRead:
        async with control_plane() as control:
            hashed = await control.hasher.hash(data.password)
            async with control.database.transaction(control.write_scope) as transaction:
                service = OperatorService(session=transaction.session)
                made = await service.add(email=data.email, hashed_password=hashed, role=role)
                return to_struct(made, OperatorRead)

    made = asyncio.run(work())
    if as_json:
        print_json(made)
    elif not quiet:
        click.echo(f"{made.email} is an operator ({made.role}).")


@operators.command("list", epilog="Example: tenantry operators list --json")
@json_option
def list_operators(as_json: bool) -> None:
    """List operators, by address."""

    async def work() -> list[OperatorRead]:
        async with control_plane() as control, control.database.transaction(control.read_scope) as transaction:
            found = await OperatorService(session=transaction.session).get_many(OrderBy("email"))
            return [to_struct(row, OperatorRead) for row in found]

    rows = asyncio.run(work())
    if as_json:
        print_json(rows)
        return
    print_table(
        ("E-mail", "Role", "Active", "Last log-in"),
        ((row.email, row.role, "yes" if row.is_active else "no", row.last_login_at) for row in rows),
    )
