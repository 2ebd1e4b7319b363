"""Redis or Valkey: whether it keeps what it is told to, and for how long it can."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from tenantry.doctor.findings import Finding, critical, note, ok, warning
from tenantry.jobs.patience import answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tenantry.doctor.site import Site

__all__ = ("check_redis", "judge_redis")

_OLDEST = (7, 0)
_PINGS = 20
_MIB = 1024 * 1024


async def check_redis(site: Site) -> list[Finding]:
    redis = site.redis
    info: dict[str, Any] = await redis.info("everything")
    try:
        config: dict[str, str] = await redis.config_get("save", "appendonly")
    except ResponseError:
        # Managed servers keep CONFIG to themselves.
        config = {}
    # Of these, what the quicker ones took: what else this process does meanwhile is none of Redis' doing.
    times = []
    for _ in range(_PINGS):
        before = time.perf_counter()
        await answer(redis.ping())
        times.append(time.perf_counter() - before)
    return judge_redis(info, config, latency=sorted(times)[_PINGS // 4], timeout=site.settings.redis_timeout)


def judge_redis(info: Mapping[str, Any], config: Mapping[str, str], *, latency: float, timeout: float) -> list[Finding]:
    """What INFO and CONFIG GET say; `latency` of a PING and `timeout` of a call are in seconds."""
    found = [*_judge_kind(info), *_judge_memory(info), *_judge_persistence(info, config)]
    if latency > timeout / 4:
        tell = critical if latency > timeout else warning
        found.append(
            tell(
                "redis.latency",
                "Redis answers slowly: requests wait for it, or go on without it",
                seen=f"{latency * 1000:.1f} ms for a PING",
                expected=f"less than a quarter of TENANTRY_REDIS_TIMEOUT ({timeout * 1000:g} ms)",
                remedy="Have it near the API, look for slow commands (SLOWLOG GET) and for swapping.",
            )
        )
    if not [finding for finding in found if finding.severity.rank > 1]:
        name = "Valkey" if "valkey_version" in info else "Redis"
        version = info.get("valkey_version") or info.get("redis_version")
        found.append(
            ok(
                "redis.good",
                "Redis keeps what it is told to",
                seen=f"{name} {version}, {latency * 1000:.2f} ms for a PING",
            )
        )
    return found


def _judge_kind(info: Mapping[str, Any]) -> list[Finding]:
    found = []
    version = tuple(map(int, re.findall(r"\d+", str(info.get("redis_version", "")))[:2]))
    if "valkey_version" not in info and version < _OLDEST:
        found.append(
            warning(
                "redis.version",
                "Redis is older than what is tested",
                seen=str(info.get("redis_version")),
                expected="Redis 7 or newer, or Valkey",
                remedy="Upgrade it.",
            )
        )
    if info.get("cluster_enabled"):
        found.append(
            critical(
                "redis.cluster",
                "Redis is a cluster, where the queues' scripts cannot run: they touch several organizations' keys",
                seen="cluster_enabled:1",
                expected="one server, with a replica where it must not be away",
                remedy="Give the queues a server of their own kind: docs/operations/deployment.md, Redis.",
            )
        )
    if info.get("role") not in {None, "master"}:
        found.append(
            critical(
                "redis.replica",
                "The address leads to a replica, which takes no writes",
                seen=f"role:{info['role']}",
                expected="the primary",
                remedy="Correct TENANTRY_REDIS_URL.",
            )
        )
    clients, most = int(info.get("connected_clients", 0)), int(info.get("maxclients", 0))
    if most and clients > 0.8 * most:
        found.append(
            warning(
                "redis.clients",
                "Redis has hardly a connection left",
                seen=f"{clients:,} of {most:,}",
                expected="at most four fifths",
                remedy="Raise maxclients, or find who keeps so many open (CLIENT LIST).",
            )
        )
    return found


def _judge_memory(info: Mapping[str, Any]) -> list[Finding]:
    found = []
    policy, most, used = (
        str(info.get("maxmemory_policy")),
        int(info.get("maxmemory", 0)),
        int(info.get("used_memory", 0)),
    )
    if policy != "noeviction":
        tell = critical if policy.startswith("allkeys") else warning
        found.append(
            tell(
                "redis.eviction",
                "Redis throws jobs away when its memory is full"
                if policy.startswith("allkeys")
                else "Redis throws counts of use and of guesses away when its memory is full",
                seen=f"maxmemory-policy {policy}",
                expected="noeviction: an error is noticed, a key that is gone is not",
                remedy="CONFIG SET maxmemory-policy noeviction, and in its configuration file.",
            )
        )
    if evicted := int(info.get("evicted_keys", 0)):
        found.append(
            warning(
                "redis.evicted",
                "Redis has thrown keys away since it started",
                seen=f"{evicted:,}",
                expected="none",
                remedy="Give it more memory, and the policy noeviction.",
            )
        )
    if not most:
        found.append(
            note(
                "redis.unlimited",
                "Redis has no limit of memory of its own",
                seen=f"maxmemory 0, {used / _MIB:,.0f} MiB used",
                remedy="Set maxmemory to somewhat less than its machine has, or the kernel will choose what ends.",
            )
        )
    elif used > 0.8 * most:
        tell = critical if used > 0.95 * most else warning
        found.append(
            tell(
                "redis.memory",
                "Redis' memory is nearly full",
                seen=f"{used / _MIB:,.0f} of {most / _MIB:,.0f} MiB",
                expected="at most four fifths",
                remedy="Raise maxmemory; see `tenantry jobs stats` for queues that grow.",
            )
        )
    return found


def _judge_persistence(info: Mapping[str, Any], config: Mapping[str, str]) -> list[Finding]:
    found = []
    if info.get("rdb_last_bgsave_status", "ok") != "ok" or info.get("aof_last_write_status", "ok") != "ok":
        found.append(
            critical(
                "redis.not-written",
                "Redis could not write to its disk, and refuses writes for that",
                seen=f"bgsave {info.get('rdb_last_bgsave_status')}, append {info.get('aof_last_write_status')}",
                expected="ok",
                remedy="See its log: the disk is full, or the folder not its own.",
            )
        )
    if not int(info.get("aof_enabled", 0)) and not config.get("save", "unknown"):
        found.append(
            note(
                "redis.volatile",
                "Redis keeps nothing over a restart",
                seen="no append-only file, no snapshots",
                expected="appendonly yes",
                remedy="Nothing is lost for good, jobs come again from the outbox; but counts of guesses and of use "
                "start over, and so do jobs that have begun.",
            )
        )
    return found
