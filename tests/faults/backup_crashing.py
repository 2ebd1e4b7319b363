"""A process that backs up or restores and is killed: by SIGKILL, after a given step.

python -m tests.faults.backup_crashing create 3 <slug>
python -m tests.faults.backup_crashing restore 5 <slug>
python -m tests.faults.backup_crashing shared 2
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from pathlib import Path

from tenantry.kernel.logging import configure_logging
from tenantry.kernel.settings import load_settings
from tenantry.platform.backups.shared import restore_shared
from tests.databases import Template
from tests.faults.deployment import _environment
from tests.platform.backups.support import ACTOR, open_backups, row_of

__all__ = ("run_killed",)

_TIME_LIMIT = 90.0


async def run_killed(
    what: str,
    addresses: Template,
    home: Path,
    *,
    die_after: int,
    slug: str = "",
) -> tuple[bool, tuple[str, ...]]:
    """Whether it was killed, and the names of the steps that ended.

    Raises:
        AssertionError: it ended in any other way.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.faults.backup_crashing",
        what,
        str(die_after),
        slug,
        env=_environment(addresses, home, {}) | {"TENANTRY_DATABASE_OWNER_URL": addresses.owner_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode in {0, -signal.SIGKILL}, errors.decode(errors="replace")
    return process.returncode != 0, tuple(output.decode().splitlines())


async def _work(what: str, die_after: int, slug: str) -> None:
    settings = load_settings(os.environ)
    # On stderr, and not among the steps.
    configure_logging(settings.log_level, settings.log_format)
    assert settings.database_owner_url is not None
    owner_url = settings.database_owner_url.get_secret_value()
    addresses = Template("", "", owner_url, settings.database_url or "", settings.redis_url or "")
    ended = itertools.count(1)

    async def listener(step: str) -> None:
        sys.stdout.write(f"{step}\n")
        sys.stdout.flush()
        if next(ended) == die_after:
            os.kill(os.getpid(), signal.SIGKILL)

    async with asyncio.timeout(_TIME_LIMIT), open_backups(addresses, settings.home) as backups:
        if what == "create":
            await backups.writer(listener).tenant(await row_of(backups, slug))
            return
        latest = (await backups.store.list()).latest()
        if what == "shared":
            manifest = await backups.store.manifest(latest[None])
            await restore_shared(backups.engine, backups.store, manifest, actor=ACTOR, listener=listener)
            return
        tenant = await row_of(backups, slug)
        await backups.restorer(listener).restore(tenant.id, await backups.store.manifest(latest[tenant.id]))


if __name__ == "__main__":
    asyncio.run(_work(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
