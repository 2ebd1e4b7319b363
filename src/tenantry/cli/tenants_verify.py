"""`tenantry tenants verify`: whether schemas are what their revisions make."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import rich_click as click

from tenantry.cli.control import control_plane
from tenantry.cli.output import json_option, print_json, quiet_option
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.cli.progress import progress_bar
from tenantry.kernel.home import complete
from tenantry.kernel.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ("verify",)

_AT_ONCE = 4


class DifferenceRead(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it should be; null stands for `not there`."""

    subject: str
    expected: str | None
    found: str | None


class VerifiedRead(msgspec.Struct, frozen=True, kw_only=True):
    """What `verify --json` prints of each tenant."""

    slug: str
    revision: str | None
    """Null where the tenant has no schema any more."""
    ok: bool
    error: str | None
    """Why the schema could not be compared."""
    differences: list[DifferenceRead]


@click.command(epilog="Example: tenantry tenants verify acme globex")
@click.argument("slugs", nargs=-1, metavar="[SLUG]...")
@click.option("--all", "everybody", is_flag=True, help="All tenants that have a schema.")
@json_option
@quiet_option
def verify(slugs: tuple[str, ...], everybody: bool, as_json: bool, quiet: bool) -> ExitCode:
    """Compare tenants' schemas with what their revisions make.

    Columns, defaults, constraints, indexes, triggers, functions, owners, privileges, the role and its memberships: all
    must be as in a schema that Alembic migrates to the tenant's revision, one step after the other. Reads the catalog
    alone, and no tenant's data. Needs TENANTRY_DATABASE_OWNER_URL. Ends with 1 where something differs, naming it.
    """
    if everybody == bool(slugs):
        raise CommandError("give the tenants' slugs, or --all", ExitCode.USAGE)
    settings = complete(load_settings(), owner=True, redis=False)
    if settings.database_owner_url is None:
        raise SettingsError(["TENANTRY_DATABASE_OWNER_URL: expected an address"])
    owner_url = settings.database_owner_url.get_secret_value()
    with progress_bar("Verifying", quiet=quiet) as tell:
        found = asyncio.run(_verify(owner_url, slugs, tell))
    wrong = [tenant for tenant in found if not tenant.ok]
    if as_json:
        print_json(found)
    elif not quiet:
        for tenant in wrong:
            _show(tenant)
        tenants = "1 tenant" if len(found) == 1 else f"{len(found):,} tenants"
        click.echo(f"{tenants} verified, {len(wrong):,} not as expected.")
    return ExitCode.FAILED if wrong else ExitCode.OK


def _show(tenant: VerifiedRead) -> None:
    if tenant.error is not None:
        click.echo(f"{tenant.slug}: {tenant.error}")
        return
    click.echo(f"{tenant.slug}, revision {tenant.revision}:")
    for line in tenant.differences:
        click.echo(f"  {_difference(line)}")


def _difference(line: DifferenceRead) -> str:
    from tenantry.platform.provisioning.fingerprint import Difference

    return str(Difference(line.subject, line.expected, line.found))


async def _verify(owner_url: str, slugs: Sequence[str], tell: Callable[[int, int], None]) -> list[VerifiedRead]:
    from tenantry.tenancy.database import owner_engine

    tenants = await _tenants(slugs)
    engine = owner_engine(owner_url, pool_size=_AT_ONCE)
    waiting = iter(tenants)
    found: dict[str, VerifiedRead] = {}

    async def work() -> None:
        for slug, tenant_id in waiting:
            found[slug] = await _verify_one(engine, slug, tenant_id)
            tell(len(found), len(tenants))

    try:
        tell(0, len(tenants))
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(work())
    except ExceptionGroup as errors:
        # All of them have the same reason: the first one is what the command ends with.
        raise errors.exceptions[0] from None
    finally:
        await engine.dispose()
    return [found[slug] for slug, _ in tenants]


async def _tenants(slugs: Sequence[str]) -> list[tuple[str, UUID]]:
    """Those of the slugs, or all that have a schema, by slug."""
    from sqlalchemy import select, text
    from sqlalchemy.orm import aliased

    from tenantry.platform.tenants.service import TenantService
    from tenantry.tenancy.models import Tenant
    from tenantry.tenancy.revision_files import HAS_SCHEMA

    async with control_plane() as control, control.database.transaction(control.read_scope) as transaction:
        if slugs:
            service = TenantService(session=transaction.session)
            return [(slug, (await service.by_slug(slug)).id) for slug in dict.fromkeys(slugs)]
        tenant = aliased(Tenant, name="t")
        rows = await transaction.session.execute(
            select(tenant.slug, tenant.id).where(text(HAS_SCHEMA)).order_by(tenant.slug)
        )
        return [(slug, tenant_id) for slug, tenant_id in rows]


async def _verify_one(engine: AsyncEngine, slug: str, tenant_id: UUID) -> VerifiedRead:
    from tenantry.platform.provisioning.reference import find_drift
    from tenantry.tenancy.revisions import UnknownRevisionError

    try:
        drift = await find_drift(engine, tenant_id)
    except UnknownRevisionError as error:
        return VerifiedRead(slug=slug, revision=None, ok=False, error=str(error), differences=[])
    if drift is None:
        return VerifiedRead(slug=slug, revision=None, ok=False, error="it has no schema", differences=[])
    return VerifiedRead(
        slug=slug,
        revision=drift.revision,
        ok=not drift.differences,
        error=None,
        differences=[
            DifferenceRead(subject=one.subject, expected=one.expected, found=one.found) for one in drift.differences
        ],
    )
