"""What a tenant has outside the database: keys in Redis and files in the storage."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tenantry.jobs.ring import Ring
from tenantry.tenancy.redis import Holding, holding_of, queue_name, tenant_key, tenant_search_pattern
from tenantry.tenancy.use import forget_use

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection
    from uuid import UUID

    from redis.asyncio import Redis

    from tenantry.kernel.storage import Storage

__all__ = ("count_holdings", "forget_cached", "remove_files", "remove_keys", "tenant_folder")

_BATCH = 500


def tenant_folder(tenant_id: UUID) -> str:
    """The folder of the storage that holds every file of a tenant."""
    return f"tenants/{tenant_id}"


async def _keys(redis: Redis, tenant_id: UUID) -> AsyncIterator[tuple[Holding, bytes]]:
    """Every key of a tenant, some perhaps twice (as SCAN has it)."""
    async for key in redis.scan_iter(match=tenant_search_pattern(tenant_id), count=1000):
        if (holding := holding_of(tenant_id, key)) is not None:
            yield holding, key


async def count_holdings(
    redis: Redis, storage: Storage, tenant_id: UUID, *, uploads: Collection[str] = ()
) -> dict[str, int]:
    """How many `redisKeys`, `queueKeys` and `objects` there are, and how many `bytes` these have.

    `uploads` are keys of archives that the tenant was made of, which lie outside its folder.

    Raises:
        redis.RedisError, StorageUnavailableError: one of the two does not answer, so that nobody knows.
    """
    keys: Counter[Holding] = Counter()
    seen: set[bytes] = set()
    async for holding, key in _keys(redis, tenant_id):
        if key not in seen:
            seen.add(key)
            keys[holding] += 1
    objects, size = await storage.measure(tenant_folder(tenant_id))
    for upload in uploads:
        if (info := await storage.head(upload)) is not None:
            objects, size = objects + 1, size + info.size
    return {"redisKeys": keys["redis"], "queueKeys": keys["queues"], "objects": objects, "bytes": size}


async def remove_keys(redis: Redis, tenant_id: UUID) -> None:
    """Remove every key of a tenant from Redis, of its namespace and of its queue, and its place in the ring."""
    # First: a worker must not find in the ring what has no jobs any more.
    await Ring(redis).forget(queue_name(tenant_id))
    await forget_use(redis, tenant_id)
    await _unlink(redis, [key async for _, key in _keys(redis, tenant_id)])


async def forget_cached(redis: Redis, tenant_id: UUID) -> None:
    """Remove what is remembered of a tenant's rows, which have become others."""
    cached = f"{tenant_key(tenant_id, 'cache')}:".encode()
    await _unlink(redis, [key async for _, key in _keys(redis, tenant_id) if key.startswith(cached)])


async def _unlink(redis: Redis, found: list[bytes]) -> None:
    for start in range(0, len(found), _BATCH):
        # One command a key: a cluster refuses one whose keys are in several slots, and a queue's are.
        async with redis.pipeline(transaction=False) as pipeline:
            for key in found[start : start + _BATCH]:
                pipeline.unlink(key)
            await pipeline.execute()


async def remove_files(storage: Storage, tenant_id: UUID, *, uploads: Collection[str] = ()) -> None:
    """Remove every file of a tenant: archives, exports and whatever else was kept in its folder, and `uploads`."""
    for upload in uploads:
        await storage.delete(upload)
    await storage.delete_prefix(tenant_folder(tenant_id))
