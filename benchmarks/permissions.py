"""Permissions read in each request's transaction, beside a cache of them in Redis: `python -m benchmarks.permissions`.

Both find out who is asking, inside the transaction that the request has anyhow, for organizations at random. The cache
is given every advantage: it is full, nothing is ever dropped, a look-up is one GET, and a session and its account are
still read from the database, since an end of theirs has to count at once.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import psutil
import rich_click as click
from rich.console import Console
from rich.table import Table

from benchmarks.deployment import Caller, open_deployment
from benchmarks.progress import show_progress
from tenantry.domain.identity.principal import _PRINCIPAL
from tenantry.domain.roles.catalogue import PermissionCatalogue
from tenantry.features import DOMAIN_FEATURES
from tenantry.kernel.redis import create_redis
from tenantry.tenancy.context import ScopeTimes, TenantContext
from tenantry.tenancy.plan import PlanLimits
from tenantry.tenancy.redis import tenant_key
from tenantry.tenancy.wiring import create_database, required

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from benchmarks.deployment import Deployment
    from tenantry.tenancy.database import Database

_WITHOUT_GRANTS = """
SELECT u.is_superuser
  FROM user_session s JOIN user_account u ON u.id = s.user_id
 WHERE s.id = $1 AND s.user_id = $2 AND s.revoked_at IS NULL AND s.expires_at > now() AND u.is_active
"""
_TTL = 300
_TOGETHER = 8


class Found(msgspec.Struct, frozen=True):
    """Of one way, a figure of each round."""

    alone: list[float]
    """Microseconds that one took, one after the other."""
    together: list[float]
    """How many a second, eight at a time."""
    database_cpu: list[float]
    """Microseconds of the database server's CPU for each, eight at a time."""
    client_cpu: list[float]
    redis_cpu: list[float]


class _Ways:
    """The two ways to find out who is asking."""

    def __init__(self, database: Database, redis: Redis, tenants: dict[Any, TenantContext]) -> None:
        self._database = database
        self._redis = redis
        self._tenants = tenants
        self.catalogue = PermissionCatalogue(
            permission for feature in DOMAIN_FEATURES for permission in feature.permissions
        )

    def _key(self, caller: Caller) -> str:
        return tenant_key(caller.tenant_id, "permissions", caller.user_id)

    async def fill(self, callers: tuple[Caller, ...]) -> None:
        for caller in callers:
            async with self._database.transaction(self._tenants[caller.tenant_id].read_scope) as transaction:
                record = await transaction.connection.fetchrow(_PRINCIPAL, caller.session_id, caller.user_id)
            assert record is not None
            await self._redis.set(self._key(caller), "\n".join(record["grants"]), ex=_TTL * 1000)

    async def read(self, caller: Caller) -> frozenset[str]:
        """As it is: one statement."""
        async with self._database.transaction(self._tenants[caller.tenant_id].read_scope) as transaction:
            record = await transaction.connection.fetchrow(_PRINCIPAL, caller.session_id, caller.user_id)
        assert record is not None
        return self.catalogue.of_grants(record["grants"])

    async def cached(self, caller: Caller) -> frozenset[str]:
        """A GET, while no connection is held, and a smaller statement."""
        grants: bytes | None = await self._redis.get(self._key(caller))
        async with self._database.transaction(self._tenants[caller.tenant_id].read_scope) as transaction:
            record = await transaction.connection.fetchrow(_WITHOUT_GRANTS, caller.session_id, caller.user_id)
        assert record is not None
        assert grants is not None
        return self.catalogue.of_grants(grants.decode().split("\n"))


def _cpu(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


async def _burst(way: Callable[[Caller], Awaitable[Any]], callers: list[Caller], number: int) -> float:
    """Seconds that it took, eight at a time."""
    waiting = iter(callers)

    async def work() -> None:
        for caller in waiting:
            await way(caller)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(number)))
    return time.perf_counter() - began


async def measure(deployment: Deployment, *, rounds: int, number: int) -> dict[str, Found]:
    """Both ways, in turn, with the same callers."""
    settings = deployment.settings()
    database = create_database(settings, application_name="bench-permissions", pool_size=_TOGETHER)
    redis = create_redis(required(settings.redis_url), timeout=5)
    callers = deployment.manifest.callers
    tenants = {
        caller.tenant_id: TenantContext.build(
            tenant_id=caller.tenant_id,
            slug=f"org-{index}",
            name="Organization",
            status="active",
            plan=PlanLimits("team"),
            times=ScopeTimes(),
        )
        for index, caller in enumerate(callers)
    }
    ways = _Ways(database, redis, tenants)
    found: dict[str, Found] = {name: Found([], [], [], [], []) for name in ("read", "cached")}
    chance = random.Random(1)
    try:
        await ways.fill(callers)
        for way in (ways.read, ways.cached):
            # Every connection has seen every organization: a first visit costs ten times as much.
            await _burst(way, [*callers] * _TOGETHER, _TOGETHER)
        backends = [psutil.Process(pid) for pid in await _backends(database, tenants[callers[0].tenant_id], _TOGETHER)]
        valkey = [each for each in psutil.Process().children(recursive=True) if "valkey" in each.name()]
        for _ in range(rounds):
            chosen = chance.choices(callers, k=number)
            for name, way in {"read": ways.read, "cached": ways.cached}.items():
                alone = await _burst(way, chosen[: number // 4], 1)
                before = _cpu(backends), time.process_time(), _cpu(valkey)
                together = await _burst(way, chosen, _TOGETHER)
                after = _cpu(backends), time.process_time(), _cpu(valkey)
                spent = [(after[index] - before[index]) / number * 1e6 for index in range(3)]
                found[name].alone.append(alone / (number // 4) * 1e6)
                found[name].together.append(number / together)
                found[name].database_cpu.append(spent[0])
                found[name].client_cpu.append(spent[1])
                found[name].redis_cpu.append(spent[2])
    finally:
        await redis.aclose()
        await database.close()
    return found


async def _backends(database: Database, tenant: TenantContext, number: int) -> set[int]:
    """The processes behind the pool's connections, all of them checked out at once."""
    opened = [await database.begin(tenant.read_scope) for _ in range(number)]
    try:
        return {await each.connection.fetchval("SELECT pg_backend_pid() WHERE $1", True) for each in opened}
    finally:
        for each in opened:
            await each.close()


def table(found: dict[str, Found]) -> Table:
    shown = Table(title="Who is asking, and what they may do: medians")
    for column in ("", "one after the other", "eight at a time", "CPU: database", "application", "Redis"):
        shown.add_column(column, justify="left" if not column else "right")
    for name, figures in found.items():
        shown.add_row(
            name,
            f"{statistics.median(figures.alone):,.0f} µs",
            f"{statistics.median(figures.together):,.0f}/s",
            f"{statistics.median(figures.database_cpu):,.0f} µs",
            f"{statistics.median(figures.client_cpu):,.0f} µs",
            f"{statistics.median(figures.redis_cpu):,.0f} µs",
        )
    return shown


@click.command(epilog="Example: python -m benchmarks.permissions --tenants 100 --rounds 5")
@click.option("--tenants", type=click.IntRange(min=1), default=500, show_default=True, help="How many organizations.")
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True, help="Of both ways, in turn.")
@click.option("--number", type=click.IntRange(min=4), default=4000, show_default=True, help="Look-ups of a burst.")
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), help="Keep the servers' data here.")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON instead of the table.")
def main(tenants: int, rounds: int, number: int, home: Path | None, as_json: bool) -> None:
    """Measure reading permissions against caching them."""
    with (
        show_progress(quiet=not Console(stderr=True).is_terminal) as progress,
        open_deployment(home, tenants, progress) as deployment,
    ):
        found = asyncio.run(measure(deployment, rounds=rounds, number=number))
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        Console(width=110).print(table(found))


if __name__ == "__main__":
    main()
