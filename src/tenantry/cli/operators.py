"""`tenantry operators`: the people who run the platform."""

from __future__ import annotations

import asyncio
import sys

import rich_click as click
from advanced_alchemy.filters import OrderBy

from tenantry.cli.control import control_plane
from tenantry.cli.output import checked, json_option, print_json, print_table, quiet_option, read_secret
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.kernel.schema import normalize_email
from tenantry.kernel.security.policy import check_new_password
from tenantry.kernel.service import to_struct
from tenantry.kernel.settings import load_settings
from tenantry.platform.audit.service import cli_actor
from tenantry.platform.operators.models import OPERATOR_ROLES
from tenantry.platform.operators.schemas import OperatorLoginPayload, OperatorRead
from tenantry.platform.operators.service import OperatorService

__all__ = ("operators",)


@click.group(epilog="Example: tenantry operators list")
def operators() -> None:
    """Create, list and change the people who run the platform."""


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
    check_new_password(settings, data.password, email=data.email, organization=())

    async def work() -> OperatorRead:
        async with control_plane() as control:
            hashed = await control.hasher.hash(data.password)
            async with control.database.transaction(control.write_scope) as transaction:
                service = OperatorService(session=transaction.session)
                made = await service.add(email=data.email, hashed_password=hashed, role=role, actor=cli_actor())
                return to_struct(made, OperatorRead)

    made = asyncio.run(work())
    if as_json:
        print_json(made)
    elif not quiet:
        click.echo(f"{made.email} is an operator ({made.role}).")


@operators.command(epilog="Example: tenantry operators update ops@example.com --role auditor")
@click.argument("email")
@click.option("--role", type=click.Choice(OPERATOR_ROLES), help="Another role.")
@click.option("--active/--inactive", "is_active", default=None, help="Give the access back, or take it away.")
@json_option
@quiet_option
def update(email: str, role: str | None, is_active: bool | None, as_json: bool, quiet: bool) -> None:
    """Change an operator's role, or take their access away: they are refused with their next request.

    Ends with 3 where there is no such operator, with 4 where no active owner would be left.
    """
    changes = {name: value for name, value in (("role", role), ("is_active", is_active)) if value is not None}
    if not changes:
        raise CommandError("nothing to change: give --role, --active or --inactive", ExitCode.USAGE)

    async def work() -> OperatorRead:
        async with control_plane() as control, control.database.transaction(control.write_scope) as transaction:
            service = OperatorService(session=transaction.session)
            found = await service.get_one_or_none(email=normalize_email(email))
            if found is None:
                raise CommandError(f"there is no operator {email}", ExitCode.NOT_FOUND)
            return to_struct(await service.change(found.id, changes, actor=cli_actor()), OperatorRead)

    changed = asyncio.run(work())
    if as_json:
        print_json(changed)
    elif not quiet:
        click.echo(f"{changed.email} is {changed.role}{'' if changed.is_active else ', and inactive'}.")


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
