"""A worker's process for tests, whose jobs leave a row each time they take effect: `python -m tests.jobs.effects`."""

from __future__ import annotations

import asyncio
import os
import random
from uuid import uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.features import JOBS
from tenantry.jobs.definition import job
from tenantry.kernel.logging import configure_logging
from tenantry.kernel.settings import load_settings
from tenantry.worker import WorkerProcess

__all__ = ("effect",)

# Every run that takes effect is a row of its own: one that took effect twice is seen. Names are unique among tags, so
# each has the run's number behind it: else the second effect would be refused, whoever had let it run.
_INSERT = text("INSERT INTO tag (id, slug, name, created_at, updated_at) VALUES (:id, :slug, :name, now(), now())")


@job("effect", retries=20, timeout=30, backoff=0.1)
async def effect(session: AsyncSession, name: str) -> None:
    number = uuid4()
    await session.execute(_INSERT, {"id": number, "slug": f"s-{number.hex}", "name": f"{name}#{number.hex}"})
    # Now and then long enough to be killed in the middle.
    await asyncio.sleep(random.choice((0, 0, 0, 0.02, 0.1)))


def main() -> None:
    settings = load_settings(os.environ)
    configure_logging(settings.log_level, settings.log_format)
    asyncio.run(WorkerProcess(settings, jobs=(effect, *JOBS), schedules=()).run())


if __name__ == "__main__":
    main()
