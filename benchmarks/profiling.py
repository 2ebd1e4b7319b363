"""Where the server's CPU time goes: a sampling profiler inside the server, under the same load.

Not cProfile: it charges every Python call some hundred nanoseconds, so that code in many small functions looks worse
than it is. Here the kernel interrupts the process every so many microseconds of CPU time (SIGPROF, setitimer(2)), and
the interrupted frame is noted. A sample belongs to the innermost frame of a package that has a part of its own below;
what C code does (the driver's protocol, msgspec, uvloop) thereby counts for the Python function that called it.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Mapping
from types import FrameType
from typing import Any

import msgspec
from litestar import get

__all__ = ("PARTS", "Profile", "ProfileRead", "part_of", "profile_handlers", "share")

_INTERVAL = 0.001

# Part, and what in a frame's file name or in `file:function` says so; the first match counts.
_RULES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("profiler", ("benchmarks/profiling.py",)),
    ("encoding", ("litestar/serialization/", "litestar/response/base.py:render", "kernel/service.py:to_struct")),
    ("routing, injection, response", ("/litestar/",)),
    ("scope", ("tenancy/connection.py", "tenancy/scope.py")),
    ("transaction", ("tenancy/database.py",)),
    ("tenant and token", ("tenancy/request.py", "tenancy/registry.py", "kernel/security/", "tenancy/context.py")),
    ("guards and principal", ("identity/principal.py", "tenancy/guards.py", "roles/catalogue.py")),
    (
        "edge: id, headers, metrics, log",
        (
            "kernel/http/",
            "kernel/metrics.py",
            "kernel/logging.py",
            "/structlog/",
            "/prometheus_client/",
            "/logging/__init__.py",
        ),
    ),
    ("driver and protocol", ("/asyncpg/",)),
    (
        "pool and adapter",
        (
            "sqlalchemy/pool/",
            "sqlalchemy/dialects/",
            "sqlalchemy/util/_concurrency",
            "sqlalchemy/util/concurrency",
            "sqlalchemy/connectors/asyncio",
            "sqlalchemy/event/",
            "sqlalchemy/ext/asyncio/engine.py:raw_connection",
            "sqlalchemy/engine/base.py:raw_connection",
        ),
    ),
    ("Advanced Alchemy", ("/advanced_alchemy/",)),
    ("SQLAlchemy", ("/sqlalchemy/",)),
    (
        "handler and queries",
        ("tenantry/domain/", "benchmarks/apps.py", "kernel/service.py", "kernel/schema.py", "tenancy/hot.py"),
    ),
    ("server and event loop", ("/granian/", "/uvloop/", "/asyncio/")),
)

PARTS: tuple[str, ...] = (*(part for part, _ in _RULES), "other")

_known: dict[tuple[str, str], str | None] = {}


def _classify(file: str, function: str) -> str | None:
    key = (file, function)
    if key not in _known:
        place = f"{file.replace(chr(92), '/')}:{function}"
        _known[key] = next((part for part, marks in _RULES if any(mark in place for mark in marks)), None)
    return _known[key]


def part_of(frame: FrameType | None) -> str:
    """The part to which an interrupted frame belongs: its own file's, else its nearest caller's that has one."""
    while frame is not None:
        code = frame.f_code
        if (part := _classify(code.co_filename, code.co_name)) is not None:
            return part
        frame = frame.f_back
    return "other"


_samples: Counter[str] = Counter()
_functions: Counter[str] = Counter()


def _sample(_: int, frame: FrameType | None) -> None:
    part = part_of(frame)
    _samples[part] += 1
    if frame is not None:
        code = frame.f_code
        _functions[f"{part}: {'/'.join(code.co_filename.split('/')[-2:])}:{code.co_qualname}"] += 1


ProfileRead = dict[str, dict[str, int]]


@get("/profile/start", sync_to_thread=False, include_in_schema=False, opt={"public": True})
def start_profile() -> None:
    """Begin to count, from nothing."""
    _samples.clear()
    _functions.clear()
    signal.signal(signal.SIGPROF, _sample)
    signal.setitimer(signal.ITIMER_PROF, _INTERVAL, _INTERVAL)


@get("/profile/stop", sync_to_thread=False, include_in_schema=False, opt={"public": True})
def stop_profile() -> ProfileRead:
    """Stop, and tell the samples by part and by function."""
    signal.setitimer(signal.ITIMER_PROF, 0)
    return {"parts": dict(_samples), "functions": dict(_functions.most_common(60))}


profile_handlers: tuple[Any, ...] = (start_profile, stop_profile)


class Profile(msgspec.Struct, frozen=True):
    """Where one route's time goes; times in µs per request.

    `alone` is by the clock with one connection, `alone_cpu` the server's CPU time of it: the rest is PostgreSQL, and
    messages under way. `server_cpu` and `postgres_cpu` are CPU times under load, of which `parts` and `functions` are
    the server's shares.
    """

    title: str
    alone: float
    alone_cpu: float
    server_cpu: float
    postgres_cpu: float
    requests: int
    samples: int
    parts: dict[str, float]
    functions: dict[str, float]


def share(counted: Mapping[str, int], name: str, whole: Mapping[str, int] | None = None) -> float:
    """The part of all samples that bear `name`; `whole`, if `counted` is not all of them."""
    total = sum((whole or counted).values())
    return counted.get(name, 0) / total if total else 0.0
