"""A worker's process without a database: `python -m tests.jobs.bystander REDIS_URL WORKER_ID`."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

from tests.jobs.support import open_fair_queue, open_saq_worker

__all__ = ("COUNTS", "count")

COUNTS = "effects"
"""A hash in Redis: how many times each job has run."""


async def count(context: Any, **_: Any) -> str:
    job = context["job"]
    await job.queue.redis.hincrby(COUNTS, job.id, 1)
    return str(context["worker"].id)


async def main(url: str, worker_id: str) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with open_fair_queue(worker_id, url) as queue, open_saq_worker(queue, [("count", count)]):
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
