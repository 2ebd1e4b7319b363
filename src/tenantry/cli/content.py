"""What `up` and `migrate` put into a database: the shared schema, plans and tenants, and the demo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from tenantry.cli.control import control_plane
from tenantry.cli.demo import DemoLogin, make_operator, make_organizations, owner_passwords, working_logins
from tenantry.platform.audit.service import cli_actor
from tenantry.platform.tenants.files import TenantFiles, read_folder
from tenantry.platform.tenants.plan import Applied, apply
from tenantry.tenancy.database import owner_engine
from tenantry.tenancy.migrations import head, upgrade
from tenantry.tenancy.scope import SHARED_SCHEMA

if TYPE_CHECKING:
    from pathlib import Path

    from tenantry.kernel.settings import Settings

__all__ = ("fill", "live_demo_logins", "migrate_shared", "read_folder")


async def migrate_shared(owner_url: str) -> tuple[str | None, str]:
    """Bring the shared schema to its newest revision; the revisions before (None: there was no schema) and after.

    Where a newer release has been there already, nothing is done: this one works on what that has added, and is perhaps
    deployed in its place.
    """

    def work(connection: Connection) -> str | None:
        table = f"{SHARED_SCHEMA}.alembic_version"
        before = None
        if connection.scalar(text("SELECT to_regclass(:table)"), {"table": table}) is not None:
            before = connection.scalar(text(f"SELECT version_num FROM {table}"))  # noqa: S608 - a constant
        if before is not None and str(before) > head("shared"):
            return str(before)
        upgrade(connection, "shared")
        return None if before is None else str(before)

    engine = owner_engine(owner_url)
    try:
        async with engine.begin() as connection:
            before = await connection.run_sync(work)
    finally:
        await engine.dispose()
    return before, max(before or "", head("shared"))


async def fill(settings: Settings, folder: Path | None, *, demo: bool) -> tuple[list[Applied], list[DemoLogin] | None]:
    """Apply a folder, and give the organizations in it demo users; what was done, and the log-ins that work.

    The log-ins are None where this deployment has operators of its own, and so gets no demo.
    """
    # All the domains: what only looks at the database need not wait for them.
    from tenantry.features import ENTITLEMENTS

    files = read_folder(folder, ENTITLEMENTS) if folder is not None else TenantFiles()
    async with control_plane(settings) as control:
        made = await make_operator(control) if demo else False
        applied = await apply(
            files,
            database=control.database,
            read_scope=control.read_scope,
            write_scope=control.write_scope,
            creator=control.creator,
            requested_by=cli_actor(),
            owner_passwords=owner_passwords() if made else None,
            wait=settings.provision_wait,
        )
        if not made:
            return applied, None
        await make_organizations(control)
        return applied, await working_logins(control)


async def live_demo_logins(settings: Settings) -> list[DemoLogin]:
    """The demo's log-ins that work here."""
    async with control_plane(settings) as control:
        return await working_logins(control)
