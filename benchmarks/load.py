"""Load: wrk where it is installed, else a client of our own; either is a process of its own.

Both take a file of whole requests, one after the other, and send them at random over connections that stay open.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ("ClientName", "Load", "LoadFailed", "choose_client", "run_load", "write_requests")

ClientName = Literal["wrk", "python"]

_ROOT = Path(__file__).parents[1]

# wrk's own latencies: its `-R` sibling corrects for coordinated omission, but closed-loop load is what a ratio needs.
_LUA = """
local requests = {}
function init(args)
  local file = assert(io.open(args[1], "rb"))
  local text = file:read("*a")
  file:close()
  for request in text:gmatch("(.-\\r\\n\\r\\n)") do requests[#requests + 1] = request end
  math.randomseed(tonumber(args[2]))
end
function request() return requests[math.random(#requests)] end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "p50": %.3f, "p99": %.3f, "refused": %d, "broken": %d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"""


class LoadFailed(RuntimeError):  # noqa: N818
    """A request was not answered with success, or the client broke: the numbers would mean nothing."""


class Load(msgspec.Struct, frozen=True):
    """What one burst came to; latencies in milliseconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    refused: int
    """Answers other than 2xx; of wrk's, those from 400 on (what is asked for was seen to answer 200 beforehand)."""
    broken: int
    """Connections that failed, and answers that did not come."""


def choose_client(wanted: ClientName | None = None) -> ClientName:
    """wrk if it is there, since it takes least from the servers; else our own."""
    if wanted is not None:
        return wanted
    return "wrk" if shutil.which("wrk") else "python"


def write_requests(path: Path, targets: Iterable[tuple[str, str | None]], *, host: str) -> Path:
    """Write GET requests of (path, access token) to a file."""
    with path.open("wb") as file:
        for target, token in targets:
            authorization = f"Authorization: Bearer {token}\r\n" if token is not None else ""
            file.write(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{authorization}\r\n".encode("ascii"))
    return path


def run_load(client: ClientName, port: int, requests: Path, *, connections: int, seconds: int, seed: int) -> Load:
    """Send the requests at random for `seconds`.

    Raises:
        LoadFailed: any of them was not answered with success.
    """
    requests = requests.absolute()
    if client == "wrk":
        script = requests.parent / "requests.lua"
        script.write_text(_LUA)
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{port}/"]
        command += ["--", str(requests), str(seed)]
    else:
        command = [sys.executable, "-m", "benchmarks.client", str(port), str(requests), str(connections)]
        command += [str(seconds), str(seed)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60, cwd=_ROOT)
    if ran.returncode != 0 or not ran.stdout.strip():
        raise LoadFailed(f"{client} ended with {ran.returncode}: {ran.stderr.strip()[-2000:]}")
    load = msgspec.json.decode(ran.stdout.strip().splitlines()[-1], type=Load)
    if load.refused or load.broken or not load.requests:
        raise LoadFailed(f"of {load.requests} requests, {load.refused} were refused and {load.broken} broken off")
    return load
