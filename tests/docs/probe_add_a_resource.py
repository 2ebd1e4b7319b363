"""What has to be true of the repository with the document applied; test_add_a_resource.py runs it there.

Not collected by its name, since without the document it would fail.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from alembic import command
from sqlalchemy import CheckConstraint, Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

import tenantry
from tenantry.domain import projects  # type: ignore[attr-defined]
from tenantry.features import DOMAIN_FEATURES, TENANT_METADATA
from tenantry.platform.provisioning.schema import create_schema
from tenantry.tenancy.database import owner_engine
from tenantry.tenancy.migrations import config, migrations_folder, upgrade
from tenantry.tenancy.models import schema_name
from tests.databases import Template
from tests.world import TenantHandle, World


@pytest.fixture
async def owner(database_addresses: Template) -> AsyncIterator[AsyncConnection]:
    """The owner's connection inside a new tenant's schema, made as the provisioner makes one; rolled back."""
    engine = owner_engine(database_addresses.owner_url)
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        await connection.execute(text("SELECT 1"))
        await create_schema(cast("Any", raw.driver_connection), uuid4())
        yield connection
        await connection.rollback()
    await engine.dispose()


def test_this_is_the_copy() -> None:
    here = Path.cwd()
    assert Path(tenantry.__file__) == here / "src/tenantry/__init__.py"
    assert migrations_folder() == here / "migrations"
    assert projects.FEATURE in DOMAIN_FEATURES
    assert "PYTEST_XDIST_WORKER" not in os.environ


async def test_the_migrations_make_the_tables_of_the_models(owner: AsyncConnection) -> None:
    # Raises what autogenerate would write, if it would write anything.
    await owner.run_sync(
        lambda connection: command.check(config("tenant", connection=connection, metadata=TENANT_METADATA))
    )


async def test_the_migrations_make_the_checks_of_the_models(owner: AsyncConnection) -> None:
    """Autogenerate does not look at CHECK constraints."""
    table = TENANT_METADATA.tables["project"]
    declared = {str(check.name) for check in table.constraints if isinstance(check, CheckConstraint)}
    made = await owner.scalars(
        text("SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid = 'project'::regclass")
    )
    assert set(made) == declared
    assert len(declared) == 4


async def test_step_by_step_leads_to_what_the_compiled_script_leads_to(owner: AsyncConnection) -> None:
    compiled = await _columns(owner)
    stepped = schema_name(uuid4())
    await owner.execute(text(f'CREATE SCHEMA "{stepped}"'))
    await owner.execute(text(f'SET LOCAL search_path TO "{stepped}"'))
    await owner.run_sync(upgrade, "tenant")
    assert await _columns(owner) == compiled

    def back_and_forth(connection: Connection) -> None:
        command.downgrade(config("tenant", connection=connection), "-1")
        upgrade(connection, "tenant")

    await owner.run_sync(back_and_forth)
    assert await _columns(owner) == compiled


async def _columns(connection: AsyncConnection) -> list[tuple[object, ...]]:
    rows = await connection.execute(
        text(
            "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns"
            " WHERE table_schema = current_schema() ORDER BY table_name, column_name"
        )
    )
    return [tuple(row) for row in rows]


async def test_the_document_describes_the_routes(world: World) -> None:
    described = (await world.http.get("/schema/openapi.json")).json()["paths"]
    assert set(described["/api/projects"]) >= {"get", "post"}
    assert set(described["/api/projects/{project_id}"]) >= {"get", "patch", "delete"}


async def test_the_roles_hold_the_permissions_at_once(acme: TenantHandle) -> None:
    roles = {role["slug"]: role["permissions"] for role in (await acme.get("/api/roles")).json()["items"]}
    assert {slug for slug, held in roles.items() if "projects:write" in held} == {"owner", "admin", "member"}
    assert {slug for slug, held in roles.items() if "projects:read" in held} == {"owner", "admin", "member", "viewer"}


async def test_two_organizations_are_served_in_isolation(acme: TenantHandle, globex: TenantHandle) -> None:
    made = {}
    for tenant in (acme, globex):
        team = await tenant.add_team()
        answer = await tenant.post("/api/projects", json={"name": tenant.slug, "teamId": team["id"]})
        assert answer.status_code == 201, answer.text
        made[tenant.slug] = answer.json()["id"]
    for tenant, other in ((acme, globex), (globex, acme)):
        listed = (await tenant.get("/api/projects")).json()
        assert [item["id"] for item in listed["items"]] == [made[tenant.slug]]
        assert (await tenant.get(f"/api/projects/{made[other.slug]}")).status_code == 404
