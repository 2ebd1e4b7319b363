"""Clocks: tokens, schedules, rate limits and codes all compare times of different machines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tenantry.doctor.findings import Finding, Severity, critical, ok, warning
from tenantry.doctor.site import Need

if TYPE_CHECKING:
    from tenantry.doctor.site import Site

__all__ = ("check_clocks", "judge_clock")

_WARNING, _CRITICAL = 1.0, 30.0
"""Seconds. A code of an authenticator app is good for 30; a token that is younger than its issuer thinks is refused."""
_READINGS = 5


async def check_clocks(site: Site) -> list[Finding]:
    async def postgresql() -> float:
        (row,) = await site.catalog("SELECT extract(epoch FROM clock_timestamp())::float8 AS now")
        return float(row["now"])

    async def redis() -> float:
        seconds, microseconds = await site.redis.time()
        return float(seconds + microseconds / 1_000_000)

    found = []
    for server, read in (("PostgreSQL", postgresql), ("Redis", redis)):
        if server == "Redis" and Need.REDIS not in site.urls:
            continue
        best: tuple[float, float] | None = None
        for _ in range(_READINGS):
            # The reading that took the shortest says the most: half of what it took is its error.
            before = time.time()
            there = await read()
            after = time.time()
            error, offset = (after - before) / 2, there - (before + after) / 2
            if best is None or error < best[0]:
                best = error, offset
        assert best is not None  # noqa: S101 - there are readings
        found.append(judge_clock(server, best[1], best[0]))
    return found


def judge_clock(server: str, offset: float, error: float) -> Finding:
    """`offset` in seconds: how far the server's clock is ahead of this machine's, give or take `error`."""
    sure = max(0.0, abs(offset) - error)
    seen = f"{offset:+.3f} s ± {error:.3f} s against this machine"
    severity = Severity.CRITICAL if sure > _CRITICAL else Severity.WARNING if sure > _WARNING else Severity.OK
    if severity is Severity.OK:
        return ok("clocks.agree", f"{server}'s clock agrees with this machine's", seen=seen)
    found = critical if severity is Severity.CRITICAL else warning
    return found(
        "clocks.skew",
        f"{server}'s clock and this machine's differ",
        seen=seen,
        expected=f"at most {_WARNING:g} s",
        remedy="Run NTP (chrony, systemd-timesyncd) on both; tokens and codes are refused where clocks differ.",
    )
