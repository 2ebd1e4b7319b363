"""Redis, clocks, work that does not get done, keys and certificates: broken for real, and found."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from redis import Redis

from tenantry.doctor import sessions
from tenantry.kernel.security import Keyring, Vault
from tests.cli.support import answer, run
from tests.doctor.support import Patient, codes, examine

_OUTBOX = (
    "INSERT INTO platform.outbox (id, tenant_id, name, arguments, status, due, retries, timeout, meta, again_at,"
    " created_at, updated_at) VALUES (gen_random_uuid(), NULL, 'x', '{}', '%s', now() - interval '%s', 2, 10, '{}',"
    " now() - interval '1 hour', now(), now())"
)
_OPERATION = (
    "INSERT INTO platform.operation (id, kind, status, tenant_id, payload, attempts, not_before, error, requested_by,"
    " finished_at, created_at, updated_at) SELECT gen_random_uuid(), 'export', '%s', id, '{}', 1,"
    " now() - interval '%s', 'broken', 'test', now(), now(), now() FROM platform.tenant WHERE slug = 'acme'"
)
_ROLLOUT = (
    "INSERT INTO platform.rollout (id, target, status, canary, concurrency, halt_after, lock_timeout, max_attempts,"
    " requested_by, halted_reason, created_at, updated_at) VALUES (gen_random_uuid(), '0015', '%s', 1, 1, 1, 1000, 1,"
    " 'test', 'too many failures', now(), now() - interval '1 hour')"
)
_EVENT = (
    'INSERT INTO "{acme}".audit_event (id, name, actor, subject, payload, occurred_at) VALUES'
    " (gen_random_uuid(), 'x', 'system', gen_random_uuid(), '{}', now() - interval '%s')"
)


@pytest.mark.parametrize(
    ("check", "code", "severity", "breaking", "mending"),
    [
        ("jobs", "jobs.lag", "warning", _OUTBOX % ("pending", "5 minutes"), "DELETE FROM platform.outbox"),
        ("jobs", "jobs.lag", "critical", _OUTBOX % ("pending", "1 hour"), "DELETE FROM platform.outbox"),
        ("jobs", "jobs.lost", "warning", _OUTBOX % ("relayed", "1 hour"), "DELETE FROM platform.outbox"),
        ("jobs", "jobs.dead", "warning", _OUTBOX % ("dead", "1 hour"), "DELETE FROM platform.outbox"),
        (
            "jobs",
            "jobs.schedules",
            "warning",
            "INSERT INTO platform.schedule (id, name, enabled, timezone, next_run_at, created_at, updated_at)"
            " VALUES (gen_random_uuid(), 'x', true, 'UTC', now() - interval '1 hour', now(), now())",
            "DELETE FROM platform.schedule",
        ),
        (
            "operations",
            "operations.stuck",
            "warning",
            _OPERATION % ("pending", "5 min"),
            "DELETE FROM platform.operation",
        ),
        (
            "operations",
            "operations.stuck",
            "critical",
            _OPERATION % ("pending", "1 h"),
            "DELETE FROM platform.operation",
        ),
        (
            "operations",
            "operations.failed",
            "warning",
            _OPERATION % ("failed", "1 h"),
            "DELETE FROM platform.operation",
        ),
        ("operations", "operations.rollout-halted", "warning", _ROLLOUT % "halted", "DELETE FROM platform.rollout"),
        ("operations", "operations.rollout-stuck", "warning", _ROLLOUT % "running", "DELETE FROM platform.rollout"),
        (
            "operations",
            "operations.purges",
            "warning",
            "UPDATE platform.tenant SET status = 'purging', purge_after = now() - interval '1 day' WHERE slug = 'acme'",
            "UPDATE platform.tenant SET status = 'active', purge_after = NULL",
        ),
        (
            "audit-trails",
            "audit-trails.behind",
            "warning",
            _EVENT % "2 hours",
            'TRUNCATE "{acme}".audit_event CASCADE',
        ),
        (
            "audit-trails",
            "audit-trails.behind",
            "critical",
            _EVENT % "2 days",
            'TRUNCATE "{acme}".audit_event CASCADE',
        ),
    ],
)
def test_work_that_is_not_done_is_found(
    patient: Patient, check: str, code: str, severity: str, breaking: str, mending: str
) -> None:
    with patient.ailing([breaking], [mending]):
        found = examine(patient, "--only", check, code=1)
        assert codes(found, severity).keys() == {code}
    assert codes(examine(patient, "--only", check, code=0), "warning", "critical") == {}


def test_jobs_of_suspended_organizations_wait_on_purpose(patient: Patient) -> None:
    waiting = (_OUTBOX % ("pending", "1 hour")).replace(
        "gen_random_uuid(), NULL", "gen_random_uuid(), (SELECT id FROM platform.tenant WHERE slug = 'acme')"
    )
    with patient.ailing(
        [waiting, "UPDATE platform.tenant SET status = 'suspended' WHERE slug = 'acme'"],
        ["DELETE FROM platform.outbox", "UPDATE platform.tenant SET status = 'active'"],
    ):
        assert codes(examine(patient, "--only", "jobs", code=0)).keys() == {"jobs.done"}


def test_an_empty_warm_pool_is_found(patient: Patient) -> None:
    found = examine(patient, "--only", "operations", code=1, TENANTRY_WARM_POOL_SIZE="8")
    assert codes(found, "warning").keys() == {"operations.warm-pool"}


def test_a_tenant_that_was_left_behind_is_found(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenantry.tenancy.release.OLDEST_SERVED", "0016")
    with patient.ailing(
        ["UPDATE platform.tenant SET revision = '0016' WHERE slug = 'acme'"],
        ["UPDATE platform.tenant SET revision = (SELECT max(revision) FROM platform.tenant WHERE slug = 'globex')"],
    ):
        assert "revisions.behind" in codes(examine(patient, "--only", "revisions", code=1), "warning")


# Redis.


@pytest.fixture
def redis(patient: Patient) -> Iterator[Any]:
    client: Any = Redis.from_url(patient.redis_url)
    names = ("maxmemory-policy", "maxmemory", "appendonly", "save")
    before = {name: client.config_get(name)[name] for name in names}
    yield client
    client.replicaof("NO", "ONE")
    for name, value in before.items():
        client.config_set(name, value)
    client.close()


@pytest.mark.parametrize(
    ("settings", "code", "severity"),
    [
        ({"maxmemory-policy": "allkeys-lru"}, "redis.eviction", "critical"),
        ({"maxmemory-policy": "volatile-lru"}, "redis.eviction", "warning"),
        ({"maxmemory": "1kb"}, "redis.memory", "critical"),
        ({"appendonly": "no", "save": ""}, "redis.volatile", "note"),
        ({"maxmemory": "0"}, "redis.unlimited", "note"),
    ],
)
def test_what_redis_is_set_to_is_found(
    patient: Patient, redis: Any, settings: dict[str, str], code: str, severity: str
) -> None:
    for name, value in settings.items():
        redis.config_set(name, value)
    found = examine(patient, "--only", "redis", code=0 if severity == "note" else 1)
    assert codes(found)[code]["severity"] == severity


def test_a_replica_is_found(patient: Patient, redis: Any) -> None:
    redis.replicaof("127.0.0.1", "1")
    assert "redis.replica" in codes(examine(patient, "--only", "redis", code=1), "critical")


@pytest.mark.parametrize(("ahead", "severity"), [(10, "warning"), (-120, "critical")])
def test_clocks_that_differ_are_found(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, ahead: int, severity: str
) -> None:
    monkeypatch.setattr("tenantry.doctor.clocks.time", SimpleNamespace(time=lambda: time.time() + ahead))
    found = examine(patient, "--only", "clocks", code=1)
    assert codes(found, severity).keys() == {"clocks.skew"}
    assert len(found["checks"][0]["findings"]) == 2  # PostgreSQL's, and Redis'


# PostgreSQL's settings that a reload changes, and its sessions.


def _shown(patient: Patient, name: str) -> str:
    async def look() -> str:
        connection = await asyncpg.connect(patient.admin_url)
        try:
            return str(await connection.fetchval("SELECT setting FROM pg_settings WHERE name = $1", name))
        finally:
            await connection.close()

    return asyncio.run(look())


@contextmanager
def _reloaded(patient: Patient, name: str, value: str) -> Iterator[None]:
    """The server reads its files when it gets to it: each look is a connection, and so a while."""
    before = _shown(patient, name)
    patient.sql(f"ALTER SYSTEM SET {name} = {value}", "SELECT pg_reload_conf()")
    try:
        while _shown(patient, name) != value:
            pass
        yield
    finally:
        patient.sql(f"ALTER SYSTEM RESET {name}", "SELECT pg_reload_conf()")
        while _shown(patient, name) != before:
            pass


@pytest.mark.parametrize(
    ("check", "name", "value", "code"),
    [
        ("vacuum", "autovacuum", "off", "vacuum.off"),
        ("vacuum", "autovacuum_naptime", "3600", "vacuum.seldom"),
        ("postgresql", "full_page_writes", "off", "postgresql.unsafe"),
    ],
)
def test_a_servers_bad_setting_is_found(patient: Patient, check: str, name: str, value: str, code: str) -> None:
    with _reloaded(patient, name, value):
        assert code in codes(examine(patient, "--only", check, code=1), "warning", "critical")
    assert code not in codes(examine(patient, "--only", check, code=0))


@contextmanager
def _sessions(patient: Patient, count: int, *statements: str) -> Iterator[None]:
    """Connections of the application's, open and left alone."""
    loop = asyncio.new_event_loop()
    held: list[asyncpg.Connection[Any]] = []
    try:
        for _ in range(count):
            held.append(loop.run_until_complete(asyncpg.connect(patient.app_url)))
            for statement in statements:
                loop.run_until_complete(held[-1].execute(statement))
        yield
    finally:
        for connection in held:
            loop.run_until_complete(connection.close())
        loop.close()


def test_a_transaction_that_is_left_open_is_found(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_IDLE", 0)
    with _sessions(patient, 1, "BEGIN"):
        found = examine(patient, "--only", "sessions", code=1)
        assert "tenantry_app" in codes(found, "warning")["sessions.idle"]["seen"]
    monkeypatch.setattr(sessions, "_LONG", -1)
    with _sessions(patient, 1, "BEGIN"):
        monkeypatch.setattr(sessions, "_IDLE", 60)
        assert "sessions.long" in codes(examine(patient, "--only", "sessions", code=1), "warning")


def test_connections_that_run_out_are_found(patient: Patient) -> None:
    limits = ["ALTER ROLE tenantry_app CONNECTION LIMIT 60"], ["ALTER ROLE tenantry_app CONNECTION LIMIT -1"]
    with patient.ailing(*limits), _sessions(patient, 50):
        found = codes(examine(patient, "--only", "connections", code=1), "warning", "critical")
        assert found.keys() == {"connections.used"}
    found = codes(examine(patient, "--only", "connections", "--api-replicas", "20", code=1), "warning")
    assert found.keys() == {"connections.planned"}


def test_a_database_that_is_outgrown_is_found(patient: Patient) -> None:
    found = codes(examine(patient, "--only", "capacity", "--database-memory", "64", code=1), "warning")
    assert "memory of backends" in found["capacity.soon"]["seen"]
    unknown = codes(examine(patient, "--only", "capacity", "--api-replicas", "50", code=0), "note")
    assert unknown.keys() == {"capacity.memory-unknown"}


def test_growth_is_in_the_forecast(patient: Patient) -> None:
    row = (
        "INSERT INTO platform.catalog_statistic (id, day, measured_at, schemas, relations, database_bytes, tables,"
        " jobs, created_at, updated_at) VALUES (gen_random_uuid(), current_date - %d, now(), %d, 1, 1, '[]', '{}',"
        " now(), now())"
    )
    with patient.ailing([row % (10, 0), row % (0, 100)], ["DELETE FROM platform.catalog_statistic"]):
        found = codes(examine(patient, "--only", "capacity", code=1), "warning")
        assert "+10.0 a day" in found["capacity.soon"]["seen"]


def test_whoever_is_let_in_without_a_password_is_found(patient: Patient) -> None:
    rules = patient.hba
    before = rules.read_text()
    arguments = ("doctor", "--json", "--only", "logins", "--admin-url-stdin")
    assert codes(answer(run(*arguments, env=patient.env, stdin=patient.admin_url))).keys() == {"logins.good"}
    try:
        for line, code in (
            ("host all all 10.0.0.0/8 trust", "logins.trust"),
            ("host all all 10.0.0.0/8 password", "logins.plain"),
            ("host all nonsense", "logins.rules"),
        ):
            # Read by the view, and in force only once the server is told to.
            rules.write_text(f"{before}\n{line}\n")
            found = answer(run(*arguments, env=patient.env, stdin=patient.admin_url), 1)
            assert codes(found, "warning", "critical").keys() == {code}
    finally:
        rules.write_text(before)


def test_a_password_that_is_stored_as_md5_is_found(patient: Patient) -> None:
    digest = "md5" + "0" * 32
    patient.sql("CREATE TABLE public.kept AS SELECT rolpassword FROM pg_authid WHERE rolname = 'tenantry_owner'")
    try:
        patient.sql(f"ALTER ROLE tenantry_owner PASSWORD '{digest}'")
        arguments = ("doctor", "--json", "--only", "logins", "--admin-url-stdin")
        found = answer(run(*arguments, env=patient.env, stdin=patient.admin_url), 1)
        assert codes(found, "warning").keys() == {"logins.md5"}
    finally:
        patient.sql(
            "DO $$ BEGIN EXECUTE format('ALTER ROLE tenantry_owner PASSWORD %L',"
            " (SELECT rolpassword FROM public.kept)); END $$",
            "DROP TABLE public.kept",
        )


# Keys.


def test_keys_that_are_old_are_found(patient: Patient, tmp_path: Path) -> None:
    def long_ago() -> float:
        return time.time() - 1000 * 86_400

    Keyring.open(tmp_path / "keyring.json", retain=60, clock=long_ago)
    Vault.make(tmp_path / "vault.json", clock=long_ago)
    found = examine(patient, "--only", "keys", code=1, TENANTRY_KEYRING=str(tmp_path / "keyring.json"))
    assert [finding["code"] for finding in found["checks"][0]["findings"]] == ["keys.old", "keys.old"]
    Keyring.open(tmp_path / "keyring.json", retain=60).rotate()
    Vault(tmp_path / "vault.json").rotate()
    found = examine(patient, "--only", "keys", code=0, TENANTRY_KEYRING=str(tmp_path / "keyring.json"))
    assert codes(found).keys() == {"keys.good"}


def test_keys_of_the_future_missing_and_open_ones_are_found(patient: Patient, tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    named = {"TENANTRY_KEYRING": str(path), "TENANTRY_VAULT_FILE": str(tmp_path / "vault.json")}
    assert codes(examine(patient, "--only", "keys", code=1, **named), "critical").keys() == {"keys.missing"}
    Keyring.open(path, retain=60, clock=lambda: time.time() + 10 * 86_400)
    Vault.make(tmp_path / "vault.json")
    assert codes(examine(patient, "--only", "keys", code=1, **named), "warning").keys() == {"keys.clock"}
    path.chmod(0o644)
    assert codes(examine(patient, "--only", "keys", code=1, **named), "critical").keys() == {"keys.unusable"}
    nowhere = examine(patient, "--only", "keys", code=0, TENANTRY_HOME=str(tmp_path / "nowhere"))
    assert codes(nowhere).keys() == {"keys.elsewhere"}


# Settings.


@pytest.mark.parametrize(
    ("env", "code"),
    [
        ({"TENANTRY_MAIL_URL": "file:///var/mail"}, "settings.mail-kept"),
        ({"TENANTRY_MAIL_URL": "smtp://mail.example.com?tls=none"}, "settings.mail-plain"),
        ({"TENANTRY_API_URL": "http://api.example.com"}, "settings.http"),
        ({"TENANTRY_CORS_ORIGINS": "*"}, "settings.cors"),
        ({"TENANTRY_CORS_ORIGINS": "http://app.example.com"}, "settings.cors"),
        ({"TENANTRY_OUTBOUND_NETWORKS": "169.254.169.254/32"}, "settings.outbound-metadata"),
        ({"TENANTRY_OUTBOUND_NETWORKS": "10.0.0.0/8"}, "settings.outbound"),
        ({"TENANTRY_PASSWORD_HASH_TIME_COST": "1"}, "settings.hashing"),
        ({"TENANTRY_LOG_LEVEL": "DEBUG"}, "settings.debug"),
    ],
)
def test_a_dangerous_setting_is_found(patient: Patient, env: dict[str, str], code: str) -> None:
    found = examine(patient, "--only", "settings", code=1, **env)
    assert code in codes(found, "warning", "critical")
    assert code not in codes(examine(patient, "--only", "settings", code=0))


def test_backups_that_are_missing_old_or_damaged_are_found(patient: Patient) -> None:
    only = ("--only", "backups")
    place, keys = patient.home / "backups", patient.home / "backup-keys.json"
    assert set(codes(examine(patient, *only, code=0))) == {"backups.unknown"}
    assert not place.exists()
    assert not keys.exists()
    assert run("backup", "keys", "create", env=patient.env).exit_code == 0
    place.mkdir(mode=0o700)
    try:
        assert set(codes(examine(patient, *only, code=1), "warning")) == {"backups.none"}
        assert run("backup", "create", "--shared", "--quiet", env=patient.env).exit_code == 0
        ago = "UPDATE platform.tenant SET created_at = now() - interval '30 hours'"
        with patient.ailing([ago], ["UPDATE platform.tenant SET created_at = now()"]):
            behind = codes(examine(patient, *only, code=1), "warning")
            assert behind["backups.old"]["seen"].startswith("2: acme, globex")
        assert set(codes(examine(patient, *only, code=0))) == {"backups.fresh"}
        [manifest] = place.glob("shared/*.manifest")
        manifest.write_bytes(b"nothing")
        assert set(codes(examine(patient, *only, code=1), "critical")) == {"backups.damaged"}
        keys.chmod(0o644)
        assert set(codes(examine(patient, *only, code=1), "critical")) == {"backups.unusable"}
    finally:
        shutil.rmtree(place)
        keys.unlink()
