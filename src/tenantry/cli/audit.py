"""`tenantry audit`: the control plane's audit trail, and whether organizations' own are whole."""

from __future__ import annotations

import asyncio
import datetime
import re
from typing import TYPE_CHECKING

import rich_click as click
from click.core import ParameterSource
from sqlalchemy import select

from tenantry.cli.audit_verify import verify
from tenantry.cli.control import control_plane
from tenantry.cli.output import json_option, print_json, print_table
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.kernel.service import to_struct
from tenantry.platform.audit.models import AuditEntry
from tenantry.platform.audit.schemas import AuditEntryRead
from tenantry.platform.tenants.service import TenantService
from tenantry.tenancy.models import Tenant

if TYPE_CHECKING:
    from uuid import UUID

__all__ = ("audit",)

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


class _Since(click.ParamType):  # type: ignore[type-arg]
    name = "since"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime.datetime:
        if isinstance(value, datetime.datetime):
            return value
        text = str(value)
        try:
            if match := re.fullmatch(r"(\d{1,6})([mhd])", text):
                return datetime.datetime.now(datetime.UTC) - datetime.timedelta(**{_UNITS[match[2]]: int(match[1])})
            return datetime.datetime.fromisoformat(text).astimezone(datetime.UTC)
        except (ValueError, OverflowError):  # the latter of a moment before the year 1
            self.fail(
                f"{text!r}: expected a time such as 2026-11-23T09:00, or a span such as 30m, 12h or 7d", param, ctx
            )


@click.group(invoke_without_command=True, epilog="Example: tenantry audit --tenant acme --since 7d")
@click.option("--tenant", "slug", help="Only acts on the tenant of this slug.")
@click.option("--actor", help="Only acts of this actor: operator:<id>, cli:<account>, provisioner.")
@click.option("--action", help="Only this action: tenant.suspend, say.")
@click.option("--since", type=_Since(), metavar="WHEN", help="Only what came later: a time (ISO 8601), or 30m, 12h.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="At most so many.")
@json_option
@click.pass_context
def audit(
    ctx: click.Context,
    slug: str | None,
    actor: str | None,
    action: str | None,
    since: datetime.datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """Read what was done to the platform, by whom and why; the newest first.

    Entries are written in the transaction of the act itself, and can be neither changed nor deleted by any process
    but the database's owner. A tenant that was purged is found by its actor and action, and in its certificate.
    """
    if ctx.invoked_subcommand is not None:
        if any(ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in ctx.params):
            raise CommandError(f"give options after `{ctx.invoked_subcommand}`", ExitCode.USAGE)
        return

    async def work() -> tuple[list[AuditEntryRead], dict[UUID, str]]:
        async with control_plane() as control, control.database.transaction(control.read_scope) as transaction:
            session = transaction.session
            statement = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
            if slug is not None:
                statement = statement.where(
                    AuditEntry.tenant_id == (await TenantService(session=session).by_slug(slug)).id
                )
            if actor is not None:
                statement = statement.where(AuditEntry.actor == actor)
            if action is not None:
                statement = statement.where(AuditEntry.action == action)
            if since is not None:
                statement = statement.where(AuditEntry.created_at >= since)
            rows = [to_struct(row, AuditEntryRead) for row in await session.scalars(statement)]
            ids = {row.tenant_id for row in rows if row.tenant_id is not None}
            named = await session.execute(select(Tenant.id, Tenant.slug).where(Tenant.id.in_(ids)))
            return rows, {row.id: row.slug for row in named}

    rows, slugs = asyncio.run(work())
    if as_json:
        print_json(rows)
        return
    print_table(
        ("When", "Who", "What", "Tenant", "Reason"),
        (
            (
                f"{row.created_at:%Y-%m-%d %H:%M:%S}",
                row.actor,
                row.action if row.target is None else f"{row.action} {row.target}",
                None if row.tenant_id is None else slugs.get(row.tenant_id, row.tenant_id),
                row.reason,
            )
            for row in rows
        ),
    )


audit.add_command(verify)
