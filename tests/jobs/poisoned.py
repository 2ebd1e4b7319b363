"""A worker's process for tests, with jobs that do harm: `python -m tests.jobs.poisoned WORKER_ID quarantine|work`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tenantry.domain.tags.service import TagService
from tenantry.jobs.definition import Job, JobRun, job
from tenantry.kernel.logging import configure_logging
from tenantry.kernel.settings import load_settings
from tenantry.worker import WorkerProcess

__all__ = ("JOBS", "command", "die", "fine", "hog", "spin")


def _note(run: JobRun, name: str) -> None:
    """Every beginning, since what a killed attempt wrote is rolled back."""
    with Path(os.environ["POISON_LOG"]).open("a") as file:
        file.write(f"{name} {run.attempt}\n")


@job("fine", retries=2, timeout=60)
async def fine(tags: TagService, run: JobRun, name: str) -> None:
    _note(run, name)
    await tags.create({"name": name, "slug": name})
    await asyncio.sleep(0.2)


@job("spin", retries=5, timeout=60)
async def spin(run: JobRun, name: str) -> None:
    _note(run, name)
    await asyncio.sleep(0.1)
    while True:
        pass


@job("hog", retries=5, timeout=60)
async def hog(run: JobRun, name: str) -> None:
    _note(run, name)
    held = []
    while True:
        held.append(bytearray(16 << 20))
        await asyncio.sleep(0.01)


@job("die", retries=5, timeout=60)
async def die(run: JobRun, name: str) -> None:
    _note(run, name)
    os._exit(9)


JOBS: list[Job] = [fine, spin, hog, die]


def command(worker_id: str, quarantine: bool) -> list[str]:
    return [sys.executable, "-m", "tests.jobs.poisoned", worker_id, "quarantine" if quarantine else "work"]


def main() -> None:
    settings = load_settings(os.environ)
    configure_logging(settings.log_level, settings.log_format)
    process = WorkerProcess(
        settings, worker_id=sys.argv[1], quarantine=sys.argv[2] == "quarantine", jobs=JOBS, schedules=()
    )
    asyncio.run(process.run())


if __name__ == "__main__":
    main()
