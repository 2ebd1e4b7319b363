"""What the provisioner's metrics tell of the whole deployment."""

from __future__ import annotations

import time

import pytest
from prometheus_client import REGISTRY

from tenantry.platform.gauges import DeploymentGauges
from tenantry.tenancy.database import owner_engine
from tests.databases import Template
from tests.platform.support import as_admin

_JOB = """
INSERT INTO platform.outbox
       (id, tenant_id, name, arguments, status, due, retries, timeout, meta, created_at, updated_at)
SELECT gen_random_uuid(), NULL, 'x', '{}', $1, now() - make_interval(secs => $2), 3, 10, '{}', now(),
       now() - make_interval(secs => $2) FROM generate_series(1, $3)
"""


def value(name: str, **labels: str) -> float:
    found = REGISTRY.get_sample_value(name, labels)
    assert found is not None, name
    return found


async def look(addresses: Template) -> None:
    engine = owner_engine(addresses.owner_url)
    try:
        assert await DeploymentGauges(warm_schemas=7).run(engine) is False
    finally:
        await engine.dispose()


async def test_an_empty_deployment_has_nothing_to_do(database_addresses: Template) -> None:
    await look(database_addresses)
    for name in ("outbox_lag_seconds", "outbox_oldest_relayed_seconds", "operations_pending", "warm_schemas"):
        assert value(f"tenantry_{name}") == 0
    assert value("tenantry_rollout_state", status="halted") == 0
    assert value("tenantry_warm_schemas_wanted") == 7
    assert value("tenantry_backup_last_timestamp_seconds") == 0
    assert time.time() - value("tenantry_deployment_sampled_timestamp_seconds") < 60
    assert value("tenantry_database_connections", pool="tenantry-owner", state="in_use") == 0


async def test_what_waits_is_counted_and_how_long(database_addresses: Template) -> None:
    async with as_admin(database_addresses) as admin:
        for status, seconds, count in (("pending", 90, 2), ("later", -3600, 3), ("relayed", 500, 1), ("dead", 9, 4)):
            await admin.execute(_JOB, status, seconds, count)
        await admin.execute(
            "INSERT INTO platform.rollout (id, target, status, canary, concurrency, halt_after, lock_timeout,"
            " max_attempts, requested_by, created_at, updated_at)"
            " VALUES (gen_random_uuid(), 'x', 'halted', 1, 1, 1, 1, 1, 'test', now(), now())"
        )
        await admin.execute(
            "INSERT INTO platform.catalog_statistic"
            " (id, day, measured_at, schemas, relations, database_bytes, tables, jobs, created_at, updated_at)"
            " VALUES (gen_random_uuid(), '2026-01-01', now(), 5, 600, 7000, '[]', '{}', now(), now())"
        )
    await look(database_addresses)
    counts = {
        status: value("tenantry_outbox_jobs", status=status) for status in ("pending", "later", "relayed", "dead")
    }
    assert counts == {"pending": 2, "later": 3, "relayed": 1, "dead": 4}
    assert value("tenantry_outbox_lag_seconds") == pytest.approx(90, abs=30)
    assert value("tenantry_outbox_oldest_relayed_seconds") == pytest.approx(500, abs=30)
    rollout = {status: value("tenantry_rollout_state", status=status) for status in ("running", "halted", "done")}
    assert rollout == {"running": 0, "halted": 1, "done": 0}
    assert value("tenantry_catalog_schemas") == 5
    assert value("tenantry_catalog_relations") == 600
    assert value("tenantry_database_bytes") == 7000
