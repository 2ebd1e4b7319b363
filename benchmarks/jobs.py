"""Jobs: plain SAQ on one queue beside the ring with 1, 100 and 10,000 tenants, a flood, and doing nothing.

The jobs do nothing, so that what is measured is the queue. All of it in one process against one Valkey, in turn, round
by round; a ratio is that of two medians within a round.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import psutil
import rich_click as click
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table
from saq import Worker
from saq.queue.redis import RedisQueue

from benchmarks.progress import show_progress
from tenantry.dev.valkey import EmbeddedValkey
from tenantry.jobs.fair import FairQueue
from tenantry.jobs.queue import RingQueue
from tenantry.jobs.ring import Ring, Share
from tenantry.tenancy.redis import queue_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.run import Progress

__all__ = ("Jobs", "measure_jobs", "table")

WORK_AIM, ENQUEUE_AIM, FLOOD_AIM = 1.0, 0.75, 2.0
TENANTS = (1, 100, 10_000)
_CONCURRENCY = 10
_TOGETHER = 20
_EVERY = 0.02
"""Seconds between two jobs of a small tenant."""


class Flood(msgspec.Struct, frozen=True):
    """How long a small tenant's jobs waited before they began, in milliseconds."""

    p50: float
    p99: float


class Jobs(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; rates are jobs a second, one of each round."""

    jobs: int
    enqueued: dict[str, list[float]]
    worked: dict[str, list[float]]
    waits: dict[str, Flood]
    """`idle`: nobody else; `ring` and `plain`: beside a flood of another tenant."""
    flood: int
    idle_commands: float
    """That an idle worker sends in a second, with as many tenants as there are at most."""
    idle_cpu: float
    """Of one core."""
    idle_clients: int

    def ratio(self, rates: dict[str, list[float]], tenants: int) -> float:
        """Beside plain SAQ, the median of the rounds."""
        pairs = zip(rates[str(tenants)], rates["plain"], strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)


async def _nothing(_: Any, **__: Any) -> None:
    return None


class _Site:
    def __init__(self, url: str) -> None:
        self.redis = Redis.from_url(url)
        self.blocking = Redis.from_url(url, socket_timeout=None)

    async def close(self) -> None:
        await self.redis.aclose()
        await self.blocking.aclose()

    def queues(self, tenants: int) -> list[RingQueue]:
        ring = Ring(self.redis)
        return [RingQueue(ring, queue_name(UUID(int=number + 1)), share=Share(1.0, 8)) for number in range(tenants)]

    def fair(self) -> FairQueue:
        return FairQueue(self.redis, self.blocking, worker_id="bench")

    async def enqueue(self, queues: list[Any], jobs: int) -> float:
        """So many jobs a second."""
        begun = time.perf_counter()
        for start in range(0, jobs, _TOGETHER):
            await asyncio.gather(
                *(
                    queues[number % len(queues)].enqueue("nothing", timeout=60, retries=3, number=number)
                    for number in range(start, min(jobs, start + _TOGETHER))
                )
            )
        return jobs / (time.perf_counter() - begun)

    async def work(self, queue: Any, jobs: int, *, note: Callable[[Any], None] | None = None) -> float:
        """So many jobs a second, until that many are done."""
        done, all_done = 0, asyncio.Event()

        async def begins(context: Any) -> None:
            if note is not None:
                note(context["job"])

        async def ends(_: Any) -> None:
            nonlocal done
            done += 1
            if done == jobs:
                all_done.set()

        worker: Worker[Any] = Worker(
            queue,
            [("nothing", _nothing)],
            concurrency=_CONCURRENCY,
            before_process=begins,
            after_process=ends,
            dequeue_timeout=1.0,
        )
        worker.SIGNALS = []
        begun = time.perf_counter()
        task = asyncio.create_task(worker.start())
        await all_done.wait()
        seconds = time.perf_counter() - begun
        worker.event.set()
        await task
        return jobs / seconds

    async def wait_beside(self, flood: int, small: int, *, plain: bool) -> Flood:
        """How long the jobs of a small tenant wait, which come one by one while a flood is worked off."""
        waits: list[float] = []

        def note(job: Any) -> None:
            if (job.kwargs or {}).get("small"):
                waits.append(time.time() * 1000 - job.queued)

        await self.redis.flushdb()
        mine: RedisQueue
        if plain:
            queue: Any = RedisQueue(self.redis, name="plain")
            theirs = mine = queue
        else:
            theirs, mine = self.queues(2)
            queue = self.fair()
        if flood:
            await self.enqueue([theirs], flood)

        async def trickle() -> None:
            for _ in range(small):
                await mine.enqueue("nothing", timeout=60, retries=3, small=True)
                await asyncio.sleep(_EVERY)

        trickling = asyncio.create_task(trickle())
        await self.work(queue, flood + small, note=note)
        await trickling
        if isinstance(queue, FairQueue):
            await queue.close()
        waits.sort()
        return Flood(statistics.median(waits), waits[int(len(waits) * 0.99)])

    async def idle(self, tenants: int, seconds: float) -> tuple[float, float, int]:
        """Commands a second, share of a core, and connections of a worker with nothing to do."""
        await self.redis.flushdb()
        queues = self.queues(tenants)
        await queues[0].ring.register({queue.name: Share(1.0, 8) for queue in queues})
        queue = self.fair()
        worker: Worker[Any] = Worker(queue, [("nothing", _nothing)], concurrency=_CONCURRENCY, dequeue_timeout=1.0)
        worker.SIGNALS = []
        task = asyncio.create_task(worker.start())
        await asyncio.sleep(1.5)
        process = psutil.Process()
        before = (await self.redis.info("stats"))["total_commands_processed"]
        cpu = sum(process.cpu_times()[:2])
        await asyncio.sleep(seconds)
        after = (await self.redis.info("stats"))["total_commands_processed"]
        used = (sum(process.cpu_times()[:2]) - cpu) / seconds
        clients = (await self.redis.info("clients"))["connected_clients"]
        worker.event.set()
        await task
        await queue.close()
        return (after - before) / seconds, used, clients


async def _measure(url: str, jobs: int, rounds: int, flood: int, progress: Progress) -> Jobs:
    site = _Site(url)
    enqueued: dict[str, list[float]] = {}
    worked: dict[str, list[float]] = {}
    try:
        for number in range(rounds):
            # Each round begins with another: whoever is first finds a machine that is warmed up otherwise.
            order: list[int | None] = [None, *TENANTS]
            order = order[number % len(order) :] + order[: number % len(order)]
            for done, tenants in enumerate(order):
                progress("Working off jobs", number * len(order) + done, rounds * len(order))
                await site.redis.flushdb()
                name = "plain" if tenants is None else str(tenants)
                if tenants is None:
                    queue: Any = RedisQueue(site.redis, name="plain")
                    rate = await site.enqueue([queue], jobs)
                else:
                    rate = await site.enqueue(site.queues(tenants), jobs)
                    queue = site.fair()
                enqueued.setdefault(name, []).append(rate)
                worked.setdefault(name, []).append(await site.work(queue, jobs))
                if isinstance(queue, FairQueue):
                    await queue.close()
        waits = {}
        for done, (name, size, plain) in enumerate(
            (("idle", 0, False), ("ring", flood, False), ("plain", flood, True))
        ):
            progress("Beside a flood", done, 3)
            waits[name] = await site.wait_beside(size, 200, plain=plain)
        progress("Doing nothing", 0, 1)
        commands, cpu, clients = await site.idle(TENANTS[-1], 5.0)
    finally:
        await site.close()
    return Jobs(
        jobs=jobs,
        enqueued=enqueued,
        worked=worked,
        waits=waits,
        flood=flood,
        idle_commands=commands,
        idle_cpu=cpu,
        idle_clients=clients,
    )


def measure_jobs(
    *, jobs: int = 10_000, rounds: int = 5, flood: int = 20_000, progress: Progress = lambda *_: None
) -> Jobs:
    """Measure on a Valkey of its own."""
    logging.getLogger("saq").setLevel(logging.CRITICAL)
    with (
        tempfile.TemporaryDirectory(prefix="tenantry-bench-") as folder,
        EmbeddedValkey(Path(folder) / "valkey", persistent=False, delete_with_parent=True) as valkey,
    ):
        return asyncio.run(_measure(valkey.url(), jobs, rounds, flood, progress))


def table(result: Jobs) -> Table:
    """Beside plain SAQ, with the aims."""
    found = Table(
        title=f"Jobs ({result.jobs} that do nothing; plain SAQ = 1)", title_justify="left", header_style="bold"
    )
    for name in ("", "worked", "aim", "enqueued", "aim", "jobs/s worked", "jobs/s enqueued"):
        found.add_column(name, justify="right" if name else "left")
    for tenants in TENANTS:
        found.add_row(
            f"ring, {tenants:,} tenants",
            f"{result.ratio(result.worked, tenants):.2f}",
            f"{WORK_AIM:.2f}",
            f"{result.ratio(result.enqueued, tenants):.2f}",
            f"{ENQUEUE_AIM:.2f}",
            f"{statistics.median(result.worked[str(tenants)]):,.0f}",
            f"{statistics.median(result.enqueued[str(tenants)]):,.0f}",
        )
    found.add_section()
    for name, title in (
        ("idle", "a small tenant alone"),
        ("ring", f"beside a flood of {result.flood:,}"),
        ("plain", f"the same by plain SAQ, {result.flood:,}"),
    ):
        flood = result.waits[name]
        found.add_row(f"{title}: waits p50 / p99 ms", f"{flood.p50:.1f} / {flood.p99:.1f}")
    found.add_row(
        f"idle with {TENANTS[-1]:,} tenants",
        f"{result.idle_commands:.0f} commands/s, {result.idle_cpu:.1%} of a core, {result.idle_clients} clients",
    )
    return found


@click.command(epilog="Example: python -m benchmarks.jobs --jobs 5000 --rounds 3")
@click.option("--jobs", type=click.IntRange(min=100), default=10_000, show_default=True, help="Of each measurement.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--flood", type=click.IntRange(min=100), default=20_000, show_default=True, help="Jobs of the noisy one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@click.option("--quiet", is_flag=True, help="No progress.")
def main(jobs: int, rounds: int, flood: int, as_json: bool, quiet: bool) -> None:
    """Measure the queue alone; `make bench` measures it with everything else."""
    with show_progress(quiet=quiet) as tell:
        result = measure_jobs(jobs=jobs, rounds=rounds, flood=flood, progress=tell)
    if as_json:
        click.echo(msgspec.json.encode(result).decode())
    else:
        Console().print(table(result))


if __name__ == "__main__":
    main()
