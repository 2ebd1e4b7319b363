"""Provisioners that are killed in the middle of an operation: real processes, ended by SIGKILL after a given step.

    async def test_a_purge_that_is_killed_anywhere_ends_alike(...):
        async def ask(number: int) -> Tenant: ...      # make a tenant, ask for the operation: it is then pending
        async def check(tenant: Tenant) -> None: ...   # the one state that every way there must end in
        steps = await crash_everywhere(addresses, home, ask, check)

Only what `Work.step` is told of can be died after; `taken` and `recorded` are the provisioner's own. Between the last
step and the commit there is nothing, and a transaction that was not committed is as if it had never been.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import asyncpg

from tenantry.kernel.logging import configure_logging
from tenantry.kernel.settings import load_settings
from tenantry.provisioner import create_provisioner
from tests.databases import Template
from tests.faults.deployment import _environment

__all__ = ("Run", "crash_everywhere", "run_provisioner")

T = TypeVar("T")

_TIME_LIMIT = 90.0


@dataclass(frozen=True)
class Run:
    """What became of a provisioner's process."""

    killed: bool
    """False where it came to the end of what was pending, since there were fewer steps."""
    steps: tuple[str, ...]
    """Those that ended, in order; it died after the last."""
    log: str


async def run_provisioner(
    addresses: Template, home: Path, overrides: Mapping[str, object] | None = None, *, die_after: int | None = None
) -> Run:
    """Run a provisioner, without its chores, until nothing is pending; `die_after` is a number of steps, from 1.

    `overrides` are settings. An operation that failed is tried again when it is due, as ever.

    Raises:
        AssertionError: it ended in any other way, or in a minute and a half not at all.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.faults.crashing",
        str(die_after or 0),
        env=_environment(addresses, home, overrides or {}) | {"TENANTRY_DATABASE_OWNER_URL": addresses.owner_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    log = errors.decode(errors="replace")
    assert process.returncode in ({0, -signal.SIGKILL} if die_after else {0}), log
    return Run(process.returncode != 0, tuple(output.decode().splitlines()), log)


async def crash_everywhere(
    addresses: Template,
    home: Path,
    ask: Callable[[int], Awaitable[T]],
    check: Callable[[T], Awaitable[None]],
    overrides: Mapping[str, object] | None = None,
) -> tuple[str, ...]:
    """Kill a provisioner after the first step, then after the second, … and let another one finish each time.

    `ask` is given the step's number, and asks for one operation; `check` is given what it returned, once nothing is
    pending any more. Returns the names of all steps, so that a test can say which it has died after.
    """
    for number in itertools.count(1):
        asked = await ask(number)
        run = await run_provisioner(addresses, home, overrides, die_after=number)
        if run.killed:
            assert len(run.steps) == number, run.log
            await run_provisioner(addresses, home, overrides)
        await check(asked)
        if not run.killed:
            return run.steps
    raise AssertionError("itertools.count does not end")


async def _work_off(die_after: int) -> None:
    """What the process does. Its own time limit: it must not outlive a test that was interrupted."""
    settings = load_settings(os.environ)
    assert settings.database_owner_url is not None
    owner_url = settings.database_owner_url.get_secret_value()
    configure_logging(settings.log_level, settings.log_format)
    ended = itertools.count(1)

    async def listener(step: str) -> None:
        sys.stdout.write(f"{step}\n")
        sys.stdout.flush()
        if next(ended) == die_after:
            os.kill(os.getpid(), signal.SIGKILL)

    provisioner = create_provisioner(settings, owner_url, listener=listener)
    connection = await asyncpg.connect(owner_url)
    try:
        async with asyncio.timeout(_TIME_LIMIT):
            # The server may need a moment to notice that the one before has died, and to let go of its locks.
            while await connection.fetchval("SELECT EXISTS (SELECT FROM platform.operation WHERE status = 'pending')"):
                if not await provisioner.work_off():
                    await asyncio.sleep(0.02)
    finally:
        await connection.close()
        await provisioner.close()


if __name__ == "__main__":
    asyncio.run(_work_off(int(sys.argv[1])))
