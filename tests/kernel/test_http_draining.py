"""The real server, told to end under clients that keep their connections and ask one thing after the other."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter

from tenantry.dev.process import child_pids, find_free_port

_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def _ask_until_told_to_leave(port: int, answers: Counter[int], client: int) -> None:
    """On one connection. A request that gets no answer is an error (`asyncio.IncompleteReadError`, or a reset)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while True:
            writer.write(_REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert await reader.readexactly(2) == b"ok"
            answers[client] += 1
            if b"\r\nconnection: close\r\n" in head.lower():
                return
    finally:
        writer.close()
        await writer.wait_closed()


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def test_no_request_that_was_sent_is_lost_when_the_server_is_told_to_end() -> None:
    port = find_free_port()
    options = ["--interface=asgi", f"--port={port}", "--workers=1", "--loop=uvloop", "--no-ws", "--log-level=warning"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "granian", *options, "--workers-kill-timeout=90", "tests.kernel.draining:app"
    )
    try:
        async with asyncio.timeout(60):
            while not await _accepts(port):
                await asyncio.sleep(0.05)
        answers: Counter[int] = Counter()
        async with asyncio.timeout(60), asyncio.TaskGroup() as clients:
            for client in range(16):
                clients.create_task(_ask_until_told_to_leave(port, answers, client))
            while len(answers) < 16 or min(answers.values()) < 5:
                await asyncio.sleep(0)
            process.send_signal(signal.SIGTERM)
        # Each was told, and whoever comes now is served as well.
        late: Counter[int] = Counter()
        await _ask_until_told_to_leave(port, late, 0)
        assert late == {0: 1}
        for pid in child_pids(process.pid):
            os.kill(pid, signal.SIGINT)
        async with asyncio.timeout(60):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
