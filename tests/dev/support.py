"""What the tests of the embedded servers share."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import redis

from tenantry.dev.postgres import EmbeddedPostgres
from tenantry.dev.valkey import EmbeddedValkey
from tests.servers import UNSAFE_BUT_FAST

# Generous: a deadline is met at once when all is well, and the machine may be busy.
DEADLINE = 60.0


def make_postgres(home: Path, **options: Any) -> EmbeddedPostgres:
    # What was committed survives a kill of the processes, if not a power cut: without synchronous_commit it would not.
    settings = UNSAFE_BUT_FAST | {"synchronous_commit": "on"} | options.pop("settings", {})
    return EmbeddedPostgres(home / "postgres", settings=settings, sync=False, **options)


def make_valkey(home: Path, **options: Any) -> EmbeddedValkey:
    return EmbeddedValkey(home / "valkey", **options)


def query(url: str, *statements: str) -> Any:
    """Run statements on a connection of their own; the value of the last one."""

    async def run() -> Any:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return await connection.fetchval(statements[-1])
        finally:
            await connection.close()

    return asyncio.run(run())


@contextmanager
def valkey_client(url: str) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(url, decode_responses=True)
    try:
        yield client
    finally:
        client.close()


def refuses(port: int) -> bool:
    """Whether nothing listens on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def run_program(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python program of its own; it talks to the test through its standard output."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@contextmanager
def program(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    process = run_program(code, *arguments)
    with process:
        try:
            yield process
        finally:
            process.kill()


def say(process: subprocess.Popen[str]) -> str:
    """The program's next line."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, "the program ended without saying anything"
    return line
