"""The command line as tests call it: in this process where it can be, as a program where it must be."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import asyncpg
from click.testing import CliRunner, Result

from tenantry.cli import tenantry
from tenantry.kernel.settings import PREFIX
from tests.databases import Template

ROOT = Path(__file__).parents[2]
OWNER_PASSWORD = "correct horse battery"
# Passwords that are cheap to hash.
CHEAP = {
    "TENANTRY_PASSWORD_HASH_TIME_COST": "1",
    "TENANTRY_PASSWORD_HASH_MEMORY_COST": "7168",
    "TENANTRY_PASSWORD_HASH_PARALLELISM": "1",
    # Schemas that most of these tests would not use.
    "TENANTRY_WARM_POOL_SIZE": "0",
}


def environment(addresses: Template, home: Path, **overrides: str) -> dict[str, str]:
    """The settings of a deployment on these addresses, the owner's left out."""
    return {
        "TENANTRY_HOME": str(home),
        "TENANTRY_DATABASE_URL": addresses.app_url,
        "TENANTRY_REDIS_URL": addresses.redis_url,
        **CHEAP,
        **overrides,
    }


def bare_environment(**ours: str) -> dict[str, str]:
    """This process's environment without any setting of ours but these: for programs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return kept | ours


def run(*arguments: str, env: Mapping[str, str] | None = None, stdin: str | None = None) -> Result:
    """A command, through the whole group; an exception that the group did not expect fails the test."""
    clean: dict[str, str | None] = {name: None for name in os.environ if name.startswith(PREFIX)}
    result = CliRunner().invoke(tenantry, arguments, env=clean | dict(env or {}), input=stdin, prog_name="tenantry")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def answer(result: Result, code: int = 0) -> Any:
    """What a command printed as JSON."""
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def refused(result: Result, code: int) -> str:
    """The one line on stderr of a command that did nothing."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    return lines[0].removeprefix("Error: ")


def program(*arguments: str, env: Mapping[str, str], **options: Any) -> subprocess.Popen[str]:
    """A command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tenantry.cli", *arguments],
        env=bare_environment(**env),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def waiting_mails(addresses: Template) -> int:
    """How many mails a worker would send."""

    async def count() -> int:
        connection = await asyncpg.connect(addresses.admin_url)
        try:
            return int(await connection.fetchval("SELECT count(*) FROM platform.outbox WHERE name = 'send_mail'"))
        finally:
            await connection.close()

    return asyncio.run(count())
