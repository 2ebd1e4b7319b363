"""Everything that a tenant can have anywhere, and what is left of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from redis.asyncio import Redis

from tenantry.kernel.redis import create_redis
from tenantry.kernel.storage import Storage
from tenantry.platform.provisioning.worker import Provisioner
from tenantry.provisioner import create_provisioner
from tenantry.tenancy.redis import queue_name, tenant_key
from tests.platform.support import as_admin, tenant_body
from tests.world import Caller, World

__all__ = (
    "FILES",
    "KEYS",
    "QUEUE_KEYS",
    "Furnished",
    "ask_for_purge",
    "furnish",
    "make_due",
    "open_redis",
    "provisioner",
    "remains",
)

FILES = {"archives/2026.zip": b"all of it", "exports/one.zip": b"some", "exports/sub/two.zip": b""}
KEYS = 3
QUEUE_KEYS = 4


@dataclass(frozen=True)
class Furnished:
    """A tenant with rows, keys, a queue and files, whose owner is signed in."""

    slug: str
    id: UUID
    owner: Caller
    teams: int

    @property
    def name(self) -> str:
        """Of its schema and its role."""
        return f"t_{self.id.hex}"


@asynccontextmanager
async def open_redis(api: World) -> AsyncIterator[Redis]:
    client = create_redis(api.addresses.redis_url, timeout=5)
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def provisioner(api: World, **replaced: Any) -> AsyncIterator[Provisioner]:
    """The whole provisioner of the deployment, for the test to drive; `replaced` are settings."""
    made = create_provisioner(api.settings.model_copy(update=replaced), api.addresses.owner_url)
    try:
        yield made
    finally:
        await made.close()


async def furnish(api: World, slug: str, *, teams: int = 2) -> Furnished:
    """Make a tenant, and give it something of everything.

    Its requests are not counted and nothing of it is cached: keys that come by themselves, a moment later.
    """
    api.app.state.use.add = lambda _: None
    api.app.state.database.followers.clear()
    made = await api.operator.post("/platform/tenants", json=tenant_body(slug))
    assert made.status_code == 202, made.text
    async with provisioner(api) as worker:
        await worker.work_off()
    tenant = Furnished(slug, UUID(made.json()["id"]), await api.log_in(slug, f"owner@{slug}.example"), teams)
    for number in range(teams):
        assert (await tenant.owner.post("/api/teams", json={"name": f"Team {number}"})).status_code == 201
    queue = queue_name(tenant.id)
    async with open_redis(api) as redis:
        for number in range(KEYS):
            await redis.set(tenant_key(tenant.id, "cache", f"someone{number}@{slug}.example"), "x")
        for key in (
            f"saq:{queue}:queued",
            f"saq:{queue}:stats",
            f"saq:job:{queue}:{queue}:ob:1",
            f"saq:abort:{queue}:x",
        ):
            await redis.set(key, "x")
    storage = Storage.open(api.settings)
    for path, content in FILES.items():
        await storage.put_bytes(f"tenants/{tenant.id}/{path}", content)
    async with as_admin(api.addresses) as admin:
        # An export that has ended, with a result; the control plane keeps it.
        await admin.execute(
            "INSERT INTO platform.operation (id, kind, status, tenant_id, payload, result, error, attempts, not_before,"
            " requested_by, created_at, updated_at) VALUES (gen_random_uuid(), 'export', 'done', $1, '{\"a\": 1}',"
            " '{\"key\": \"x\"}', NULL, 1, now(), 'operator:x', now(), now())",
            tenant.id,
        )
    return tenant


async def make_due(api: World) -> None:
    """As if the time had passed for which a tenant is refused before it is purged."""
    async with as_admin(api.addresses) as admin:
        await admin.execute("UPDATE platform.operation SET not_before = now() WHERE status = 'pending'")


async def ask_for_purge(api: World, tenant: Furnished, **more: object) -> str:
    """Ask for it, of an API that does not wait long; the operation's id. It is due at once."""
    answer = await api.operator.post(f"/platform/tenants/{tenant.slug}/purge", json={"confirm": tenant.slug, **more})
    assert answer.status_code == 202, answer.text
    await make_due(api)
    return str(answer.json()["id"])


async def remains(api: World, tenant: Furnished) -> dict[str, Any]:
    """What there is of a tenant, looked for by other means than the purge's own."""
    found: dict[str, Any] = {}
    async with open_redis(api) as redis:
        # Nothing in Redis but a tenant's own has its id in its key.
        found["keys"] = len([key async for key in redis.scan_iter(match=f"*{tenant.id}*")])
    storage = Storage.open(api.settings)
    found["files"] = sorted([info.key async for info in storage.list() if str(tenant.id) in info.key])
    async with as_admin(api.addresses) as admin:
        found["catalog"] = [
            row["what"]
            for row in await admin.fetch(
                "SELECT 'role' AS what FROM pg_roles WHERE rolname = $1"
                " UNION ALL SELECT 'schema' FROM pg_namespace WHERE nspname = $1"
                " UNION ALL SELECT 'relation' FROM pg_class WHERE relnamespace = to_regnamespace($1)"
                " UNION ALL SELECT 'member' FROM pg_auth_members m JOIN pg_roles r ON r.oid IN (m.roleid, m.member)"
                "                  WHERE r.rolname = $1",
                tenant.name,
            )
        ]
        # Of the whole control plane, every row as text: tables that name the tenant by anything but its id.
        found["rows"] = []
        for table in await admin.fetch(
            "SELECT relname AS name FROM pg_class WHERE relnamespace = 'platform'::regnamespace AND relkind = 'r'"
            " AND relname NOT IN ('purge_certificate', 'audit_entry') ORDER BY relname"
        ):
            for row in await admin.fetch(f"SELECT to_jsonb(t)::text AS row FROM platform.{table['name']} t"):
                if f'"{tenant.slug}"' in row["row"] or f"@{tenant.slug}.example" in row["row"]:
                    found["rows"].append(table["name"])
    return found
