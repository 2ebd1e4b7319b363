"""Independent reads of one request, beside one another.

A session is one connection's, and no request may hold two: of a pool's connections, each could be held by somebody who
waits for a second. So the request gives its own back first. Then several tasks read, each in a transaction of its own
that holds one connection and waits for none; and all such requests of a process together leave half of the pool to the
others, waiting for their turn without a connection.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tenantry.kernel.errors import NotAuthenticatedException
from tenantry.tenancy.bulkheads import Bulkhead
from tenantry.tenancy.cache import CachedRead

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.tenancy.cache import TenantCache
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.request import TenantRequest

    Read = Callable[[AsyncSession], Awaitable[Any]]

__all__ = ("ParallelReads",)

_QUEUE = 1000
"""Reads of one tenant that wait for a turn: a few for each request, and those are bounded before."""
_PATIENCE = 10.0
"""Seconds: more than anybody waits for a connection, so that a read fails for what is short."""


class ParallelReads:
    """Reads for one request on several connections.

    Args:
        database: the process's pool.
        at_once: how many connections one request reads on.
        together: how many all requests of the process read on so; they wait by turns of their tenants.
        cache: remembers what reads say may be remembered.
    """

    def __init__(self, database: Database, *, at_once: int, together: int, cache: TenantCache | None = None) -> None:
        self._database = database
        self._cache = cache
        self._at_once = at_once
        self._together = together
        self._turns = Bulkhead("parallel-reads", together, queue=_QUEUE, patience=_PATIENCE)

    async def read(self, request: TenantRequest, reads: Mapping[str, Read]) -> dict[str, Any]:
        """What each read returns, or the exception that it raises, by its name; in whatever order.

        Every read sees its own moment, and only the tenant of the request. What the request has written before is
        lost: it has not to have.

        Raises:
            NotAuthenticatedException: the request is no tenant's.
        """
        tenant = request.tenant
        if tenant is None:
            raise NotAuthenticatedException
        await request.pause()
        left, found = iter(reads.items()), dict[str, Any]()

        async def work() -> None:
            for name, read in left:
                try:
                    found[name] = await self._read(tenant, read)
                except Exception as error:  # noqa: BLE001, RUF100 - the caller decides, for each of them
                    found[name] = error

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._at_once, len(reads))):
                group.create_task(work())
        return found

    async def _read(self, tenant: TenantContext, read: Read) -> Any:
        scope = tenant.read_scope

        async def load() -> Any:
            # In this order: who waits for a turn holds no connection. And no tenant has more turns than connections:
            # while its reads wait for one of those, others' go on.
            share = min(self._together, self._database.share(scope))
            if not self._turns.take(scope.account, share):
                await self._turns.wait(scope.account, share, plan=scope.plan)
            try:
                async with self._database.transaction(scope) as transaction:
                    return await read(transaction.session)
            finally:
                self._turns.give(scope.account)

        if self._cache is not None and isinstance(read, CachedRead):
            return await self._cache.recall(tenant, read, load)
        return await load()
