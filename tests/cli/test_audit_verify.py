from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID

import pytest

from tenantry.cli.problems import ExitCode
from tenantry.domain.audit.chain import seal_next
from tenantry.events.record import record_event
from tenantry.kernel.settings import load_settings
from tenantry.tenancy.context import TenantContext
from tenantry.tenancy.models import schema_name
from tenantry.tenancy.plan import PlanLimits
from tenantry.tenancy.wiring import create_database, scope_times
from tests.cli.support import OWNER_PASSWORD, answer, refused, run
from tests.databases import Template
from tests.isolation.estate import run_as

Env = dict[str, str]


@pytest.fixture
def tenants(env: Env, provisioner: None) -> dict[str, UUID]:
    return {slug: create(env, slug) for slug in ("acme", "globex")}


def create(env: Env, slug: str) -> UUID:
    arguments = ["--name", slug.title(), "--plan", "free", "--owner-email", f"ann@{slug}.example"]
    made = run("tenants", "create", slug, *arguments, "--owner-password-stdin", "--json", env=env, stdin=OWNER_PASSWORD)
    return UUID(answer(made)["id"])


def happen(env: Env, tenant_id: UUID, count: int, *, sealed: bool = True) -> None:
    """So many tags are made, and sealed one by one."""

    async def work() -> None:
        settings = load_settings(env)
        database = create_database(settings, application_name="test", pool_size=1)
        context = TenantContext.build(
            tenant_id=tenant_id,
            slug="any",
            name="Any",
            status="active",
            plan=PlanLimits(slug="free"),
            times=scope_times(settings),
        )
        try:
            for _ in range(count):
                async with database.transaction(context.write_scope) as transaction:
                    await record_event(transaction.session, "tag.created", subject=tenant_id)
                    if sealed:
                        await seal_next(transaction.session)
        finally:
            await database.close()

    asyncio.run(work())


def tamper(addresses: Template, tenant_id: UUID, statement: str) -> None:
    asyncio.run(run_as(addresses.owner_url, f'SET search_path TO "{schema_name(tenant_id)}"; {statement}'))


def test_trails_are_verified_and_what_was_changed_is_named(
    env: Env, database_addresses: Template, tenants: dict[str, UUID]
) -> None:
    happen(env, tenants["acme"], 3)
    happen(env, tenants["globex"], 2)
    happen(env, tenants["globex"], 1, sealed=False)
    good: list[dict[str, Any]] = answer(run("audit", "verify", "--all", "--json", env=env))
    assert [(trail["slug"], trail["ok"], trail["seals"]) for trail in good] == [("acme", True, 3), ("globex", True, 2)]
    assert [trail["unsealed"] for trail in good] == [0, 1]
    assert all(len(trail["hash"]) == 64 for trail in good)
    said = run("audit", "verify", "--all", env=env)
    assert (said.exit_code, said.stdout) == (0, "2 trails verified, 5 sealed events, 0 not as sealed.\n")

    tamper(
        database_addresses,
        tenants["acme"],
        "UPDATE audit_event SET actor = 'operator'"
        " WHERE id = (SELECT last_event_id FROM audit_seal WHERE sequence = 2)",
    )
    found = run("audit", "verify", "--tenant", "acme", "--json", env=env)
    assert found.exit_code == ExitCode.FAILED
    [broken] = json.loads(found.stdout)
    assert (broken["ok"], broken["seals"], broken["seal"]) == (False, 1, 2)
    assert broken["error"] == f"seal 2, event {broken['event']}: it is not what was sealed"
    both = run("audit", "verify", "--all", env=env)
    assert both.exit_code == ExitCode.FAILED
    assert both.stdout.splitlines() == [
        f"acme: {broken['error']}",
        "2 trails verified, 3 sealed events, 1 not as sealed.",
    ]
    assert run("audit", "verify", "--tenant", "globex", "--quiet", env=env).output == ""


def test_whose_trail_is_said_and_is_known(env: Env) -> None:
    assert "--tenant SLUG, or --all" in refused(run("audit", "verify", env=env), ExitCode.USAGE)
    both = run("audit", "verify", "--tenant", "acme", "--all", env=env)
    assert "--tenant SLUG, or --all" in refused(both, ExitCode.USAGE)
    early = run("audit", "--tenant", "acme", "verify", "--all", env=env)
    assert "give options after `verify`" in refused(early, ExitCode.USAGE)
    unknown = run("audit", "verify", "--tenant", "nobody", env=env)
    assert unknown.exit_code in {ExitCode.USAGE, ExitCode.NOT_FOUND}
    assert "nobody" in unknown.output


def test_the_platforms_own_trail_is_read_as_before(env: Env, tenants: dict[str, UUID]) -> None:
    acts = answer(run("audit", "--tenant", "acme", "--json", env=env))
    assert [act["action"] for act in acts] == ["tenant.create"]
