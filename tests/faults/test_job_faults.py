"""Jobs whose workers, queue or database die under them: every one that was committed takes effect exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from tenantry.kernel.redis import create_redis
from tests.faults.site import Site, open_site
from tests.platform.support import eventually

pytestmark = pytest.mark.slow

# Whoever marks rows as relayed passes here, and waits while the test has the lock: a door in the database, which the
# code under test knows nothing of.
_DOOR = 20261123
_HANG_DOOR = f"""
CREATE SCHEMA door;
CREATE FUNCTION door.pass() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $function$
BEGIN
    PERFORM pg_advisory_xact_lock_shared({_DOOR});
    RETURN NEW;
END
$function$;
CREATE TRIGGER door BEFORE UPDATE ON platform.outbox FOR EACH ROW WHEN (NEW.status = 'relayed')
    EXECUTE FUNCTION door.pass();
"""


async def _during(site: Site, harm: Callable[[], Awaitable[None]], *, every: int, times: int) -> None:
    """Do harm while jobs are committed and run: each time that so many more have taken effect."""
    work = asyncio.create_task(site.commit_jobs())
    for number in range(1, times + 1):

        async def far_enough(wanted: int = number * every) -> bool:
            return await site.effects() >= wanted

        await eventually(far_enough, 60)
        await harm()
    await work


async def test_workers_are_killed_at_random() -> None:
    async with open_site() as site:
        await _during(site, site.kill_one, every=100, times=8)
        await site.check()


async def test_redis_is_killed_and_comes_back_empty() -> None:
    async with open_site() as site:

        async def harm() -> None:
            await asyncio.to_thread(site.valkey.kill)
            await asyncio.to_thread(site.valkey.start)

        await _during(site, harm, every=300, times=2)
        await site.check()


async def test_postgresql_is_killed_while_jobs_run() -> None:
    async with open_site() as site:
        await site.commit_jobs()

        async def some_done() -> bool:
            return bool(await site.ask("SELECT count(*) < 900 FROM platform.outbox"))

        await eventually(some_done, 60)
        await asyncio.to_thread(site.postgres.kill)
        await asyncio.to_thread(site.postgres.start)
        await site.check()


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another worker"])
async def test_the_relay_is_killed_between_enqueueing_and_marking(beside: bool) -> None:
    """Redis has the jobs, and PostgreSQL does not know: they are relayed again, and take effect once all the same."""
    # The door is held for longer than statements usually may take (seconds).
    patient = {"statement_timeout": 120, "lock_timeout": 110}
    async with open_site(workers=0) as site:
        await site.commit_jobs(each=40)
        committed = sum(map(len, site.committed.values()))
        door = await asyncpg.connect(site.addresses.admin_url)
        redis = create_redis(site.valkey.url(), timeout=5)
        try:
            await door.execute(_HANG_DOOR)
            await door.fetchval("SELECT pg_advisory_lock($1)", _DOOR)

            async def waiting(query: str, least: int = 1) -> bool:
                asked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1"
                return int(await door.fetchval(asked, query)) >= least

            await site.start_worker(**patient)
            await eventually(lambda: waiting("%SET status = 'relayed'%"), 60)
            keys = [key async for key in redis.scan_iter(match="saq:job:*:ob:*", count=1000)]
            assert len(keys) == committed, "all of it is in Redis"
            assert await site.ask("SELECT bool_and(status = 'pending') FROM platform.outbox"), "and nothing is marked"
            if beside:
                await site.start_worker(**patient)
                # More than the first worker's eight slots hold: the second is at jobs of that relay as well.
                await eventually(lambda: waiting("%acknowledge_job%", least=9), 60)
            await site.kill_first()
            assert await site.effects() == 0
        finally:
            await redis.aclose()
            # Which opens the door, also to what was sent by the dead: the server finds that out, and rolls back.
            await door.close()
        if not beside:
            await site.start_worker()
        await site.check()
