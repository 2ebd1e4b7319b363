"""What no test can bring about in a server in a moment, judged by its numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tenantry.doctor import dangers, pooler, sessions
from tenantry.doctor.capacity import BYTES_PER_RELATION, Measured, judge_capacity, limits
from tenantry.doctor.clocks import judge_clock
from tenantry.doctor.dangers import check_settings
from tenantry.doctor.findings import Finding, some
from tenantry.doctor.postgresql import Catalog, judge_age, judge_settings, judge_vacuum
from tenantry.doctor.redis_server import judge_redis
from tenantry.doctor.sessions import judge_sessions, planned_connections
from tenantry.doctor.site import Need, Options, Site, gather
from tenantry.kernel.home import HomeAddresses, OwnerAddresses, write_addresses
from tenantry.kernel.settings import load_settings
from tests.doctor.support import Patient, codes, examine

GOOD_SETTINGS = {
    "server_version_num": "180000",
    "server_version": "18.0",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read committed",
    "max_locks_per_transaction": "256",
    "max_connections": "100",
    "max_prepared_transactions": "0",
    "password_encryption": "scram-sha-256",
    "jit": "off",
    "idle_session_timeout": "0",
    "shared_preload_libraries": "pg_stat_statements",
    "archive_mode": "on",
}
GOOD_VACUUM = {
    "autovacuum": "on",
    "track_counts": "on",
    "autovacuum_max_workers": "3",
    "autovacuum_naptime": "60",
    "autovacuum_vacuum_cost_delay": "2",
    "autovacuum_vacuum_cost_limit": "-1",
    "vacuum_cost_limit": "200",
}
GOOD_REDIS = {"redis_version": "7.4.1", "role": "master", "maxmemory_policy": "noeviction", "maxmemory": 10**9}
FEW = Catalog(relations=1000, tables=200)


def told(findings: Sequence[Finding]) -> set[str]:
    return {finding.code for finding in findings}


@pytest.mark.parametrize(
    ("changed", "catalog", "code"),
    [
        ({}, FEW, None),
        ({"server_version_num": "150004", "server_version": "15.4"}, FEW, "postgresql.version"),
        ({}, Catalog(relations=100_000, tables=30_000), "postgresql.locks"),
        ({"jit": "on"}, FEW, "postgresql.jit"),
        ({"shared_preload_libraries": ""}, FEW, "postgresql.statements"),
        ({"archive_mode": "off"}, FEW, "postgresql.archive"),
    ],
)
def test_postgresqls_settings_are_judged(changed: Mapping[str, str], catalog: Catalog, code: str | None) -> None:
    assert told(judge_settings({**GOOD_SETTINGS, **changed}, catalog, local=False)) == ({code} if code else set())


def test_locks_are_advised_that_are_enough() -> None:
    catalog = Catalog(relations=900_000, tables=450_000)
    (finding,) = judge_settings(GOOD_SETTINGS, catalog, local=False)
    advised = (finding.remedy or "").partition("max_locks_per_transaction = ")[2].partition(";")[0]
    assert judge_settings(GOOD_SETTINGS | {"max_locks_per_transaction": advised}, catalog, local=False) == []


def test_autovacuum_is_to_keep_up_with_what_there_is() -> None:
    assert judge_vacuum(GOOD_VACUUM, relations=1000) == []
    assert told(judge_vacuum(GOOD_VACUUM, relations=1_000_000)) == {"vacuum.slow"}
    quick = {"autovacuum_max_workers": "6", "autovacuum_vacuum_cost_limit": "2000"}
    assert judge_vacuum(GOOD_VACUUM | quick, relations=1_000_000) == []


@pytest.mark.parametrize(
    ("xid", "mxid", "severity"),
    [(200_000_000, 0, None), (600_000_000, 0, "warning"), (0, 600_000_000, "warning"), (1_300_000_000, 0, "critical")],
)
def test_old_rows_that_are_not_frozen_are_told_in_time(xid: int, mxid: int, severity: str | None) -> None:
    found = judge_age("tenantry", xid, mxid)
    assert [(one.code, one.severity) for one in found] == ([("vacuum.wraparound", severity)] if severity else [])


@pytest.mark.parametrize(
    ("info", "latency", "code", "severity"),
    [
        ({"redis_version": "6.2.7"}, 0.001, "redis.version", "warning"),
        ({"cluster_enabled": 1}, 0.001, "redis.cluster", "critical"),
        ({"connected_clients": 95, "maxclients": 100}, 0.001, "redis.clients", "warning"),
        ({"evicted_keys": 3}, 0.001, "redis.evicted", "warning"),
        ({"rdb_last_bgsave_status": "err"}, 0.001, "redis.not-written", "critical"),
        ({"aof_last_write_status": "err"}, 0.001, "redis.not-written", "critical"),
        ({"used_memory": 9 * 10**8}, 0.001, "redis.memory", "warning"),
        ({}, 0.1, "redis.latency", "warning"),
        ({}, 0.3, "redis.latency", "critical"),
    ],
)
def test_redis_is_judged(info: Mapping[str, Any], latency: float, code: str, severity: str) -> None:
    found = judge_redis({**GOOD_REDIS, **info}, {"save": "900 1"}, latency=latency, timeout=0.25)
    assert [(one.code, one.severity) for one in found] == [(code, severity)]
    well = judge_redis(GOOD_REDIS, {"save": "900 1"}, latency=0.001, timeout=0.25)
    assert told(well) == {"redis.good"}


def test_a_clock_is_not_blamed_for_the_way_to_it() -> None:
    assert judge_clock("PostgreSQL", 1.5, 0.8).severity == "ok"
    assert judge_clock("PostgreSQL", 1.5, 0.1).severity == "warning"
    assert judge_clock("PostgreSQL", -31, 0.1).severity == "critical"


def test_sessions_are_judged() -> None:
    base = {"pid": 1, "role": "tenantry_app", "program": "tenantry-api", "waits": None}
    assert told(judge_sessions([{**base, "state": "active", "open": 10.0, "since": 10.0}])) == set()
    assert told(judge_sessions([{**base, "state": "active", "open": 100.0, "since": 90.0, "waits": "Lock"}])) == {
        "sessions.waiting"
    }
    aborted = {**base, "state": "idle in transaction (aborted)", "open": 2000.0, "since": 61.0}
    assert told(judge_sessions([aborted])) == {"sessions.idle"}
    assert told(judge_sessions([{**base, "state": "active", "open": 901.0, "since": 5.0}])) == {"sessions.long"}


def measured(**changed: Any) -> Measured:
    values: dict[str, Any] = {
        "schemas": 1000,
        "relations": 180_000,
        "tables": 45_000,
        "catalog": 900 * 2**20,
        "buffers": 16 * 2**30,
        "locks": 256 * 2000,
        "other_tables": 100,
        "backends": 40,
        "memory": 256 * 2**30,
    }
    return Measured(**(values | changed))


def test_the_limit_that_ends_first_is_the_one_that_counts() -> None:
    found = limits(measured())
    assert found["memory of backends"] == int(128 * 2**30 / (40 * 180 * BYTES_PER_RELATION))
    assert found["catalog in shared_buffers"] == pytest.approx(8 * 2**30 / 0.892 / 2**20, rel=0.01)
    assert found["locks of a dump"] == int((256 * 2000 / 1.25 - 100) / 45)
    (finding,) = judge_capacity(measured(), daily=0, everything=256_000, assumed=False)
    assert (finding.code, "room for 3,319 by memory of backends" in (finding.seen or "")) == ("capacity.room", True)
    (finding,) = judge_capacity(measured(schemas=0, relations=0, tables=0), daily=0, everything=400, assumed=False)
    assert finding.code == "capacity.room"


def test_growth_fills_what_has_room_today() -> None:
    (finding,) = judge_capacity(measured(), daily=100, everything=256_000, assumed=False)
    assert finding.code == "capacity.soon"
    assert "full in 23 days" in (finding.seen or "")


def test_connections_that_are_replaced_in_time_need_no_memory_for_everybody() -> None:
    assert limits(measured(recycled=500))["memory of backends"] == 1_000_000
    assert limits(measured(recycled=500, memory=2**34))["memory of backends"] < 500


def test_memory_that_is_guessed_is_only_noted() -> None:
    found = judge_capacity(measured(memory=2**32), daily=0, everything=256_000, assumed=True)
    assert [(one.code, one.severity) for one in found] == [
        ("capacity.memory-unknown", "note"),
        ("capacity.room", "ok"),
    ]


def test_all_processes_of_a_deployment_count() -> None:
    settings = load_settings({"TENANTRY_WORKERS": "2"})
    one = planned_connections(settings, api_replicas=1, worker_replicas=0)
    three = planned_connections(settings, api_replicas=3, worker_replicas=2)
    assert three - one == 2 * (one - 16) + 2 * (settings.worker_concurrency + 4)


# Settings that only all of them together show.


def site(tmp_path: Path, options: Options | None = None, **env: str) -> Site:
    named = {f"TENANTRY_{name.upper()}": value for name, value in env.items()}
    return gather(load_settings({"TENANTRY_HOME": str(tmp_path), **named}), options or Options())


def settings_told(of: Site) -> dict[str, str]:
    return {finding.code: finding.severity for finding in asyncio.run(check_settings(of))}


def test_secrets_that_everybody_would_try_are_found(tmp_path: Path) -> None:
    found = settings_told(site(tmp_path, database_url="postgresql://tenantry_app:postgres@db/tenantry"))
    assert found["settings.weak-secrets"] == "critical"
    assert "settings.weak-secrets" in settings_told(site(tmp_path, redis_url="redis://cache.internal/0"))
    assert "settings.weak-secrets" not in settings_told(site(tmp_path, redis_url="redis://127.0.0.1/0"))
    app, owner = (f"postgresql://{role}:a-good-password@db/tenantry" for role in ("tenantry_app", "tenantry_owner"))
    same = settings_told(site(tmp_path, database_url=app, database_owner_url=owner))
    assert same["settings.same-secret"] == "critical"


def test_what_is_worth_a_look_is_noted(tmp_path: Path) -> None:
    found = settings_told(site(tmp_path, host="0.0.0.0", access_token_ttl="7200"))
    for code in ("settings.no-mail", "settings.proxies", "settings.long-tokens", "settings.issuer"):
        assert found[code] == "note"


def test_the_demos_passwords_are_found(tmp_path: Path) -> None:
    async def working() -> list[str]:
        return ["operator@tenantry.example"]

    assert settings_told(site(tmp_path, Options(known_logins=working)))["settings.known-passwords"] == "critical"


def test_on_ones_own_machine_dangers_are_noted_and_for_others_they_are_not(tmp_path: Path) -> None:
    app, owner = "postgresql://tenantry_app:x@127.0.0.1/tenantry", "postgresql://tenantry_owner:y@127.0.0.1/tenantry"
    write_addresses(
        tmp_path,
        HomeAddresses(database_url=app, redis_url="redis://127.0.0.1"),
        OwnerAddresses(database_owner_url=owner, superuser_url="postgresql://postgres:z@127.0.0.1/tenantry"),
    )
    mine = site(tmp_path, cors_origins="*")
    assert mine.urls.keys() == set(Need)
    assert set(settings_told(mine).values()) == {"note"}
    others = settings_told(site(tmp_path, cors_origins="*", host="0.0.0.0"))
    assert (others["settings.embedded"], others["settings.cors"]) == ("warning", "warning")


def test_without_tls_across_a_network_is_found() -> None:
    from tenantry.doctor.certificates import _plain

    assert told(_plain("Redis", "cache.internal", "TLS")) == {"certificates.plain"}
    assert _plain("Redis", "127.0.0.1", "TLS") == []
    assert dangers.judge_settings(load_settings({})) != []


def test_a_backend_that_nobody_shares_says_nothing() -> None:
    trial = pooler._Trial(turns=18, pooled=True)
    trial.served[1].add("t_a")
    trial.served[2].add("t_b")
    trial.used[1].update({0, 1})
    assert told(pooler._judge(trial)) == {"pooler.not-forced"}


def test_whoever_logs_in_as_somebody_else_is_found(patient: Patient) -> None:
    found = codes(examine(patient, "--only", "roles", code=1, TENANTRY_DATABASE_URL=patient.admin_url), "critical")
    assert "superuser" in found["roles.login"]["seen"]


def test_of_many_names_a_few_are_shown() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcdefgh")) == "a, b, c, d, e and 3 more"
    assert sessions._IDLE < sessions._LONG
