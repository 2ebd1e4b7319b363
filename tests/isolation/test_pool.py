"""The pool is everybody's: no request may need a second connection while it holds one."""

from __future__ import annotations

from pathlib import Path

from tests.databases import Template, clone_database, drop_database
from tests.isolation.planting import plant
from tests.isolation.routes import ENDPOINTS, IDENTIFIERS, begin_endless, body_of
from tests.world import open_world


async def test_every_request_makes_do_with_one_connection(template: Template, tmp_path: Path) -> None:
    """Otherwise as many requests at once as the pool has connections wait for one another, and all tenants for them."""
    addresses = await clone_database(template)
    try:
        async with open_world(addresses, tmp_path, database_connections=2, database_pool_timeout=0.5) as world:
            tenant = await world.create_tenant("acme")
            ids: dict[str, str] = {}
            for endpoint in ENDPOINTS:
                if not endpoint.path.startswith(("/api/", "/platform/")) or endpoint.path.endswith("/logout"):
                    continue
                if not ids:
                    async with world.database.transaction(tenant.context.write_scope) as transaction:
                        for name, model in IDENTIFIERS.items():
                            ids[name] = (await plant(transaction.session, model))["id"]
                caller = tenant if endpoint.path.startswith("/api/") else world.operator
                body = body_of(endpoint.body, ids)
                if endpoint.is_endless:
                    answer = await begin_endless(caller, endpoint)
                else:
                    answer = await caller.request(
                        endpoint.method, endpoint.url(ids), **({"json": body} if body else {})
                    )
                assert answer.status_code < 500, f"{endpoint}: {answer.text}"
                if endpoint.method != "GET":
                    # It may have ended or changed any of them.
                    ids = {}
    finally:
        await drop_database(addresses)
