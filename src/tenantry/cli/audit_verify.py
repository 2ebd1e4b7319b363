"""`tenantry audit verify`: whether organizations' audit trails are what was sealed."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import rich_click as click

from tenantry.cli.control import control_plane
from tenantry.cli.output import json_option, print_json, quiet_option
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.cli.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.cli.control import ControlPlane
    from tenantry.tenancy.models import Tenant

__all__ = ("verify",)


class TrailRead(msgspec.Struct, frozen=True, kw_only=True):
    """What `verify --json` prints of each organization."""

    slug: str
    ok: bool
    seals: int
    """Those that are good; the first that is not comes next."""
    events: int
    unsealed: int
    """Events that wait for the next seal."""
    hash: str | None
    """Of the last seal that is good, in hexadecimal: kept elsewhere, it shows if the chain is ever written anew."""
    seal: int | None
    """The first seal that does not match."""
    event: UUID | None
    """The first event that does not match."""
    error: str | None


@click.command(epilog="Example: tenantry audit verify --tenant acme")
@click.option("--tenant", "slug", help="The trail of the tenant of this slug.")
@click.option("--all", "everybody", is_flag=True, help="Those of all tenants that have a schema.")
@json_option
@quiet_option
def verify(slug: str | None, everybody: bool, as_json: bool, quiet: bool) -> ExitCode:
    """Compute the chain of organizations' audit trails anew, and name the first seal or event that does not match.

    Ends with 1 where one does not: somebody who may act as the database's owner has changed, added or deleted what had
    happened. What was recorded within the last minutes is not sealed yet.
    """
    if everybody == (slug is not None):
        raise CommandError("give --tenant SLUG, or --all", ExitCode.USAGE)
    with progress_bar("Verifying", quiet=quiet) as tell:
        found = asyncio.run(_verify(slug, tell))
    wrong = [trail for trail in found if not trail.ok]
    if as_json:
        print_json(found)
    elif not quiet:
        for trail in wrong:
            click.echo(f"{trail.slug}: {trail.error}")
        trails = "1 trail" if len(found) == 1 else f"{len(found):,} trails"
        events = sum(trail.events for trail in found)
        click.echo(f"{trails} verified, {events:,} sealed events, {len(wrong):,} not as sealed.")
    return ExitCode.FAILED if wrong else ExitCode.OK


async def _verify(slug: str | None, tell: Callable[[int, int], None]) -> list[TrailRead]:
    async with control_plane() as control:
        tenants = [await control.tenant(slug)] if slug is not None else await _everybody(control)
        found = []
        tell(0, len(tenants))
        for tenant in tenants:
            found.append(await _verify_one(control, tenant))
            tell(len(found), len(tenants))
        return found


async def _everybody(control: ControlPlane) -> list[Tenant]:
    from sqlalchemy import select, text
    from sqlalchemy.orm import aliased

    from tenantry.tenancy.models import Tenant
    from tenantry.tenancy.revision_files import HAS_SCHEMA

    tenant = aliased(Tenant, name="t")
    async with control.database.transaction(control.read_scope) as transaction:
        return list(await transaction.session.scalars(select(tenant).where(text(HAS_SCHEMA)).order_by(tenant.slug)))


async def _verify_one(control: ControlPlane, tenant: Tenant) -> TrailRead:
    from tenantry.domain.audit.chain import Chain, verify_chain
    from tenantry.tenancy.release import served_revisions

    scope = control.context(tenant).read_scope

    @asynccontextmanager
    async def open_session() -> AsyncIterator[AsyncSession]:
        async with control.database.transaction(scope) as transaction:
            yield transaction.session

    error = None
    chain = Chain(seals=0, events=0, unsealed=0, hash=None, broken=None)
    if tenant.revision is None or tenant.archive_key is not None or tenant.status == "purged":
        error = "it has no schema"
    elif tenant.revision not in served_revisions():
        error = f"it is at revision {tenant.revision}, which this release does not know how to read"
    else:
        chain = await verify_chain(open_session)
    broken = chain.broken
    return TrailRead(
        slug=tenant.slug,
        ok=error is None and broken is None,
        seals=chain.seals,
        events=chain.events,
        unsealed=chain.unsealed,
        hash=None if chain.hash is None else chain.hash.hex(),
        seal=None if broken is None else broken.seal,
        event=None if broken is None else broken.event,
        error=error if broken is None else str(broken),
    )
