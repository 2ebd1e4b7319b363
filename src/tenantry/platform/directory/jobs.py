"""Looking, every week, whether the directory of accounts is right."""

from __future__ import annotations

from tenantry.jobs.definition import JobRun, Transactions, job
from tenantry.platform.directory.service import repair

__all__ = ("repair_account_directory",)


@job("repair_account_directory", retries=3, timeout=14_400, backoff=300, platform=True)
async def repair_account_directory(open: Transactions, run: JobRun) -> int:  # noqa: A002
    """Make the entries of every tenant those of its accounts; how many were not."""

    async def told(done: int, of: int) -> None:
        await run.progress(done / of)

    return await repair(open, told=told)
