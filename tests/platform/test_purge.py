from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from tenantry.dev.process import find_free_port
from tenantry.kernel.security import AUDIENCE_TENANT, INVITATION, Credential, InvalidToken, Keyring, Tokens
from tenantry.kernel.storage import Storage, StorageUnavailableError
from tenantry.platform.deletion import purge
from tenantry.platform.deletion.certificate import CertificateError, sign_certificate, verify_certificate
from tenantry.platform.deletion.holdings import remove_keys
from tenantry.tenancy.redis import holding_of, platform_key, queue_name, tenant_key
from tests.databases import Template
from tests.platform.belongings import (
    FILES,
    KEYS,
    QUEUE_KEYS,
    Furnished,
    ask_for_purge,
    furnish,
    make_due,
    open_redis,
    provisioner,
    remains,
)
from tests.platform.support import as_admin, eventually, open_api
from tests.world import World

NOTHING = {"keys": 0, "files": [], "catalog": [], "rows": []}


@pytest.fixture
async def api(database_addresses: Template, tmp_path: Path) -> AsyncIterator[World]:
    async with open_api(database_addresses, tmp_path, provision_wait=0.05, registry_poll_interval=0.05) as opened:
        yield opened


async def _purge(api: World, tenant: Furnished, **more: object) -> dict[str, Any]:
    """Ask, and have it done; the certificate as the API gives it."""
    await ask_for_purge(api, tenant, **more)
    async with provisioner(api) as worker:
        assert await worker.work_off() == 1
    return await _certificate(api, tenant)


async def _fail(api: World, **replaced: Any) -> None:
    """Have it attempted by a provisioner that cannot succeed; twice, where showing why takes longer than the pause."""
    async with provisioner(api, **replaced) as worker:
        assert await worker.work_off() >= 1


async def _certificate(api: World, tenant: Furnished) -> dict[str, Any]:
    answer = await api.operator.get(f"/platform/certificates/{tenant.id}")
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def _operation(api: World, operation_id: str) -> dict[str, Any]:
    return (await api.operator.get(f"/platform/operations/{operation_id}")).json()  # type: ignore[no-any-return]


async def test_a_purge_removes_all_of_one_tenant_and_nothing_of_another(api: World) -> None:
    acme, globex = await furnish(api, "acme"), await furnish(api, "globex", teams=3)
    there, neighbour = await remains(api, acme), await remains(api, globex)
    # That the search finds everything while it is there, so that finding nothing says something.
    assert there["keys"] == KEYS + QUEUE_KEYS
    assert len(there["files"]) == len(FILES)
    assert {"role", "schema", "relation", "member"} == set(there["catalog"])
    assert there["rows"] == ["tenant"]
    got = await _purge(api, acme, reason="Erasure was asked for")
    assert await remains(api, acme) == NOTHING
    assert await remains(api, globex) == neighbour
    assert (await globex.owner.get("/api/teams")).json()["total"] == 3

    certificate = got["certificate"]
    assert verify_certificate(got["jws"]).certificate == certificate
    assert (certificate["tenantId"], certificate["slug"]) == (str(acme.id), "acme")
    assert certificate["reason"] == "Erasure was asked for"
    assert certificate["requestedBy"].startswith("operator:")
    assert certificate["requestedAt"] < certificate["completedAt"]
    assert certificate["issuer"] == api.settings.token_issuer
    removed = certificate["removed"]
    assert removed["schema"]["tables"]["team"] == acme.teams
    assert removed["schema"]["relations"] > len(removed["schema"]["tables"]) > 10
    assert removed["schema"]["bytes"] > 0
    assert removed["role"]["memberships"] >= 2
    assert (removed["redis"], removed["queues"]) == ({"keys": KEYS}, {"keys": QUEUE_KEYS})
    assert removed["files"] == {"objects": len(FILES), "bytes": sum(map(len, FILES.values()))}
    assert removed["controlPlane"]["operations"] == 1
    # The owner's; that the neighbour's stays, `remains` would tell.
    assert removed["controlPlane"]["directoryEntries"] == 1
    assert set(certificate["verified"].values()) == {0}
    assert {"schemas", "roles", "grants", "redisKeys", "queueKeys", "objects", "tenantFields"} <= set(
        certificate["verified"]
    )
    assert {"directoryEntries", "signUps"} <= set(certificate["verified"])


async def test_the_archive_that_a_tenant_was_made_of_is_removed_with_it(api: World) -> None:
    acme = await furnish(api, "acme")
    folder = api.settings.home / "storage" / "imports"
    folder.mkdir(parents=True)
    for name in ("acme.zip", "wanted.zip", "strangers.zip"):
        (folder / name).write_bytes(b"rows")
    globex = await furnish(api, "globex")
    await ask_for_purge(api, acme)
    async with as_admin(api.addresses) as admin:
        for tenant, key, status in (
            (acme, "acme.zip", "done"),
            (acme, "wanted.zip", "done"),
            (globex, "wanted.zip", "pending"),
        ):
            await admin.execute(
                "INSERT INTO platform.operation (id, kind, status, tenant_id, payload, result, attempts, not_before,"
                " requested_by, created_at, updated_at) VALUES (gen_random_uuid(), 'import', $3, $1, $2, $4, 0,"
                " now() + interval '1 hour', 'test', now(), now())",
                tenant.id,
                json.dumps({"key": f"imports/{key}"} if status == "pending" else {}),
                status,
                json.dumps({"key": f"imports/{key}"}) if status == "done" else None,
            )
    async with provisioner(api) as worker:
        assert await worker.work_off() == 1
    certificate = (await _certificate(api, acme))["certificate"]
    assert certificate["removed"]["files"]["objects"] == len(FILES) + 1
    assert sorted(path.name for path in folder.iterdir()) == ["strangers.zip", "wanted.zip"]


async def test_a_copy_that_somebody_made_beside_the_archives_is_removed_and_counted(api: World) -> None:
    acme = await furnish(api, "acme")
    copy = api.settings.home / "storage" / "tenants" / str(acme.id) / "archives" / "2026 (Kopie für Ann).zip"
    copy.write_bytes(b"all of it")
    certificate = (await _purge(api, acme))["certificate"]
    assert certificate["removed"]["files"]["objects"] == len(FILES) + 1
    assert not copy.exists()


async def test_the_slug_of_a_purged_tenant_is_free_at_once_and_its_successor_knows_nothing_of_it(api: World) -> None:
    acme = await furnish(api, "acme")
    await _purge(api, acme)
    assert (await api.operator.get("/platform/tenants/acme")).status_code == 404
    tombstone = (await api.operator.get(f"/platform/tenants/purged-{acme.id.hex}")).json()
    assert (tombstone["status"], tombstone["name"], tombstone["ownerEmail"]) == ("purged", "(purged)", "")
    assert (tombstone["revision"], tombstone["purgeAfter"], tombstone["statusReason"]) == (None, None, None)
    successor = await furnish(api, "acme", teams=0)
    assert successor.id != acme.id
    assert (await successor.owner.get("/api/teams")).json()["total"] == 0


async def test_the_credentials_of_a_purged_tenant_are_those_of_nobody(api: World) -> None:
    acme, globex = await furnish(api, "acme"), await furnish(api, "globex")
    await _purge(api, acme)
    invitation, _ = Credential.new(INVITATION, acme.id)

    async def forgotten() -> bool:
        answer = await acme.owner.get("/api/teams")
        assert answer.status_code in {401, 403}
        return answer.status_code == 401

    await eventually(forgotten, 5)
    for path, body in (
        ("/api/auth/refresh", {"refreshToken": acme.owner.refresh_token}),
        ("/api/auth/login", {"tenant": "acme", "email": "owner@acme.example", "password": "correct horse battery"}),
        (
            "/api/auth/login",
            {
                "tenant": f"purged-{acme.id.hex}",
                "email": "owner@acme.example",
                "password": "correct horse battery",
            },
        ),
    ):
        assert (await api.http.post(path, json=body)).status_code == 401
    accepted = await api.http.post(
        "/api/auth/invitations/accept", json={"token": invitation, "password": "correct horse battery"}
    )
    assert (accepted.status_code, accepted.json()["type"]) == (400, "/problems/invitation-invalid")
    assert (await globex.owner.get("/api/teams")).status_code == 200


async def test_a_tenant_without_a_schema_is_purged_as_well(api: World) -> None:
    acme = await furnish(api, "acme")
    async with as_admin(api.addresses) as admin:
        # What an archived one is like.
        await admin.execute(f'DROP SCHEMA "{acme.name}" CASCADE; DROP ROLE "{acme.name}"')
        await admin.execute(
            "UPDATE platform.tenant SET status = 'archived', revision = NULL, archive_key = 'x' WHERE id = $1", acme.id
        )
    got = await _purge(api, acme)
    assert await remains(api, acme) == NOTHING
    assert (got["certificate"]["removed"]["schema"], got["certificate"]["removed"]["role"]) == (None, None)
    assert got["certificate"]["removed"]["files"]["objects"] == len(FILES)


async def test_while_redis_is_away_nothing_is_removed_and_nothing_certified(api: World) -> None:
    acme = await furnish(api, "acme")
    before = await remains(api, acme)
    operation = await ask_for_purge(api, acme)
    await _fail(api, redis_url=f"redis://127.0.0.1:{find_free_port()}/0")
    waiting = await _operation(api, operation)
    assert waiting["status"] == "pending"
    assert waiting["error"].startswith("ConnectionError: ")
    assert await remains(api, acme) == before
    assert (await api.operator.get(f"/platform/certificates/{acme.id}")).status_code == 404
    await make_due(api)
    async with provisioner(api) as worker:
        assert await worker.work_off() == 1
    assert await remains(api, acme) == NOTHING


async def test_what_a_failed_attempt_has_removed_is_counted_by_the_next(
    api: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = await furnish(api, "acme")
    operation = await ask_for_purge(api, acme)

    async def away(self: Storage, prefix: str) -> int:
        raise StorageUnavailableError

    with monkeypatch.context() as broken:
        broken.setattr(Storage, "delete_prefix", away)
        await _fail(api)
    assert (await _operation(api, operation))["status"] == "pending"
    left = await remains(api, acme)
    assert (left["keys"], len(left["files"])) == (0, len(FILES))
    assert left["catalog"] != []
    await make_due(api)
    async with provisioner(api) as worker:
        assert await worker.work_off() == 1
    removed = (await _certificate(api, acme))["certificate"]["removed"]
    assert (removed["redis"], removed["queues"]) == ({"keys": KEYS}, {"keys": QUEUE_KEYS})
    assert removed["files"]["objects"] == len(FILES)


async def test_what_is_still_there_afterwards_is_never_certified(api: World, monkeypatch: pytest.MonkeyPatch) -> None:
    acme = await furnish(api, "acme")
    operation = await ask_for_purge(api, acme)

    async def forgets(*_: object) -> None: ...

    with monkeypatch.context() as broken:
        broken.setattr(purge, "remove_keys", forgets)
        await _fail(api)
    now = await _operation(api, operation)
    assert now["status"] == "pending"
    assert now["error"] == f"RemainsError: still there: {KEYS} redisKeys, {QUEUE_KEYS} queueKeys"
    assert (await api.operator.get(f"/platform/certificates/{acme.id}")).status_code == 404
    assert set((await remains(api, acme))["catalog"]) == {"role", "schema", "relation", "member"}


async def test_a_transaction_that_is_under_way_in_the_tenant_is_waited_for(
    api: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "_LOCK_SECONDS", 1)
    acme = await furnish(api, "acme")
    before = await remains(api, acme)
    operation = await ask_for_purge(api, acme)
    app = await asyncpg.connect(api.addresses.app_url)
    try:
        await app.execute(f'BEGIN; SET LOCAL ROLE "{acme.name}"; SET LOCAL search_path TO "{acme.name}"')
        await app.fetch("SELECT id FROM team")
        await _fail(api)
        now = await _operation(api, operation)
        assert now["status"] == "pending"
        assert "lock timeout" in now["error"]
        assert await remains(api, acme) == before
        await app.execute("COMMIT")
        await make_due(api)
        async with provisioner(api) as worker:
            assert await worker.work_off() == 1
        # Whoever enters the role later has nothing to enter.
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await app.execute(f'SET ROLE "{acme.name}"')
    finally:
        await app.close()
    assert await remains(api, acme) == NOTHING


async def test_a_purge_that_is_given_up_leaves_the_tenant_locked_out_and_can_be_asked_for_again(
    api: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = await furnish(api, "acme")
    operation = await ask_for_purge(api, acme)

    async def fails(*_: object) -> None:
        raise ValueError("no such luck")

    with monkeypatch.context() as broken:
        broken.setattr(purge, "remove_keys", fails)
        async with provisioner(api) as worker:
            while (await _operation(api, operation))["status"] == "pending":
                await worker.work_off()
                await make_due(api)
    assert (await _operation(api, operation))["status"] == "failed"
    assert (await api.operator.get("/platform/tenants/acme")).json()["status"] == "purging"
    trail = (await api.operator.get("/platform/audit", params={"action": "tenant.purge-failed"})).json()["items"]
    assert [(entry["actor"], entry["details"]) for entry in trail] == [("provisioner", {"operation": operation})]
    await _purge(api, acme)
    assert await remains(api, acme) == NOTHING


async def test_a_purge_of_a_tenant_that_is_not_deleted_is_refused_by_the_provisioner(api: World) -> None:
    acme = await furnish(api, "acme")
    before = await remains(api, acme)
    operation = await ask_for_purge(api, acme)
    async with as_admin(api.addresses) as admin:
        await admin.execute("UPDATE platform.tenant SET status = 'active' WHERE id = $1", acme.id)
    async with provisioner(api) as worker:
        assert await worker.work_off() == 1
    now = await _operation(api, operation)
    assert now["status"] == "failed"
    assert "purge is not possible" in now["error"]
    assert await remains(api, acme) == before


async def test_every_table_of_the_control_plane_that_names_tenants_is_one_that_the_purge_knows(api: World) -> None:
    async with as_admin(api.addresses) as admin:
        tables = await admin.fetch(
            "SELECT DISTINCT c.relname AS name FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
            " WHERE c.relnamespace = 'platform'::regnamespace AND c.relkind = 'r'"
            " AND (a.attname = 'tenant_id' OR EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid"
            " AND k.confrelid = 'platform.tenant'::regclass AND a.attnum = ANY (k.conkey)))"
        )
    # A new one: what of it is to be emptied in `_scrub`, and how is it verified?
    assert {table["name"] for table in tables} == {
        "account_directory",
        "audit_entry",
        "operation",
        "operator_access",
        "outbox",
        "purge_certificate",
        "rollout_tenant",
        "schedule",
        "signup",
        "usage_day",  # kept, for the bills
    }


async def test_what_the_control_plane_has_noted_about_its_rows_is_emptied(api: World) -> None:
    acme, globex = await furnish(api, "acme"), await furnish(api, "globex")
    async with as_admin(api.addresses) as admin:
        rollout = await admin.fetchval(
            "INSERT INTO platform.rollout (id, target, status, canary, concurrency, halt_after, lock_timeout,"
            " max_attempts, requested_by, created_at, updated_at)"
            " VALUES (gen_random_uuid(), '0001', 'done', 0, 1, 1, 1, 1, 'x', now(), now()) RETURNING id"
        )
        for tenant in (acme, globex):
            await admin.execute(
                "INSERT INTO platform.rollout_tenant (id, rollout_id, tenant_id, wave, status, attempts, not_before,"
                " error, statement, created_at, updated_at) VALUES (gen_random_uuid(), $1, $2, 0, 'failed', 1, now(),"
                " 'Key (email)=(ann@example.com) already exists.', 'CREATE UNIQUE INDEX', now(), now())",
                rollout,
                tenant.id,
            )
            await admin.execute(
                "INSERT INTO platform.outbox (id, tenant_id, name, arguments, status, due, retries, timeout, meta,"
                " created_at, updated_at) VALUES (gen_random_uuid(), $1, 'send_mail', '{\"to\": \"ann@example.com\"}',"
                " 'pending', now(), 2, 60, '{}', now(), now())",
                tenant.id,
            )
            await admin.execute(
                "INSERT INTO platform.schedule (id, tenant_id, name, enabled, timezone, next_run_at, created_at,"
                " updated_at) VALUES (gen_random_uuid(), $1, 'nightly', true, 'UTC', now(), now(), now())",
                tenant.id,
            )
            await admin.execute(
                "INSERT INTO platform.signup (id, organization, slug, email, digest, expires_at, confirmed_at,"
                " tenant_id, created_at, updated_at) VALUES (gen_random_uuid(), $2, $2, 'ann@example.com',"
                " sha256(convert_to($2::text, 'UTF8')), now() + interval '1 day', now(), $1, now(), now())",
                tenant.id,
                tenant.slug,
            )
            await admin.execute(
                "INSERT INTO platform.operator_access (id, tenant_id, operator_id, operator_role, can_write,"
                " is_break_glass, reason, expires_at, created_at, updated_at) SELECT gen_random_uuid(), $1, id, role,"
                " false, false, 'Ann cannot log in', now(), now(), now() FROM platform.operator LIMIT 1",
                tenant.id,
            )
        got = await _purge(api, acme)
        assert await admin.fetchval("SELECT array_agg(tenant_id) FROM platform.operator_access") == [globex.id]
        assert await admin.fetchval("SELECT array_agg(DISTINCT tenant_id) FROM platform.outbox") == [globex.id]
        assert await admin.fetchval("SELECT array_agg(tenant_id) FROM platform.signup") == [globex.id]
        assert await admin.fetchval("SELECT array_agg(tenant_id) FROM platform.account_directory") == [globex.id]
        assert await admin.fetchval("SELECT array_agg(DISTINCT tenant_id) FROM platform.schedule") == [globex.id]
        assert got["certificate"]["removed"]["controlPlane"] == {
            "operations": 1,
            "rolloutTenants": 1,
            "jobs": 1,
            "schedules": 1,
            "directoryEntries": 1,
            "signUps": 1,
            "operatorAccesses": 1,
            "tenantFields": 6,
        }
        rows = await admin.fetch("SELECT tenant_id, error, statement FROM platform.rollout_tenant")
        assert {row["tenant_id"]: row["error"] is None and row["statement"] is None for row in rows} == {
            acme.id: True,
            globex.id: False,
        }
        kept = await admin.fetch(
            "SELECT payload, result, error FROM platform.operation WHERE tenant_id = $1 AND kind <> 'purge'", acme.id
        )
    assert all(json.loads(row["payload"]) == {} and row["error"] is None for row in kept)
    assert all(row["result"] in {None, "null"} for row in kept)


async def test_a_key_of_another_tenant_that_names_this_one_is_left_alone(api: World) -> None:
    acme, globex = await furnish(api, "acme"), await furnish(api, "globex")
    theirs = [
        tenant_key(globex.id, "cache", acme.id),
        f"saq:job:{queue_name(globex.id)}:{queue_name(acme.id)}:1",
        platform_key("login", acme.id),
    ]
    async with open_redis(api) as redis:
        for key in theirs:
            await redis.set(key, "x")
        await remove_keys(redis, acme.id)
        assert await redis.exists(*theirs) == len(theirs)
        await redis.delete(*theirs)
    assert (await remains(api, acme))["keys"] == 0
    assert (await remains(api, globex))["keys"] == KEYS + QUEUE_KEYS


async def test_what_a_key_belongs_to_is_told_by_how_it_begins(api: World) -> None:
    acme = await furnish(api, "acme", teams=0)
    queue = queue_name(acme.id)
    assert holding_of(acme.id, tenant_key(acme.id, "cache", "x").encode()) == "redis"
    assert holding_of(acme.id, f"saq:abort:{queue}:x".encode()) == "queues"
    assert holding_of(acme.id, f"x{tenant_key(acme.id, 'cache')}".encode()) is None


# The certificate.


def _ring(folder: Path, name: str = "keyring.json") -> Keyring:
    return Keyring.open(folder / name, retain=3600)


def _parts(jws: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    header, payload, signature = jws.split(".")
    decoded = [json.loads(base64.urlsafe_b64decode(part + "==")) for part in (header, payload)]
    return decoded[0], decoded[1], signature


def _joined(header: dict[str, Any], payload: dict[str, Any], signature: str) -> str:
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (header, payload)]
    return ".".join((*encoded, signature))


def test_a_certificate_names_its_key_and_is_verified_when_that_key_is_long_gone(tmp_path: Path) -> None:
    ring = _ring(tmp_path)
    jws, kid = sign_certificate({"slug": "acme"}, ring)
    header, _, _ = _parts(jws)
    assert (header["alg"], header["typ"]) == ("EdDSA", "tenantry-purge-certificate+jws")
    published = ring.jwks()["keys"][0]
    assert header["kid"] == kid == published["kid"]
    assert header["jwk"] == {name: published[name] for name in ("kty", "crv", "x")}
    assert verify_certificate(jws) == ({"slug": "acme"}, kid)


def test_a_certificate_that_was_changed_is_refused(tmp_path: Path) -> None:
    jws, _ = sign_certificate({"slug": "acme"}, _ring(tmp_path))
    header, payload, signature = _parts(jws)
    other, _ = sign_certificate({"slug": "acme"}, _ring(tmp_path, "other.json"))
    another_key = _parts(other)[0]
    for forged in (
        _joined(header, {**payload, "slug": "globex"}, signature),
        _joined({**header, "typ": "JWT"}, payload, signature),
        _joined({**header, "alg": "none"}, payload, ""),
        _joined({**header, "kid": another_key["kid"]}, payload, signature),
        _joined({**header, "jwk": another_key["jwk"]}, payload, signature),
        _joined(another_key, payload, signature),
        _joined({name: value for name, value in header.items() if name != "jwk"}, payload, signature),
        _joined({**header, "crit": ["b64"]}, payload, signature),
        jws.rpartition(".")[0],
        "",
        "é",
        "." * 3,
        jws + "x" * (1 << 20),
    ):
        with pytest.raises(CertificateError):
            verify_certificate(forged)


def test_a_certificate_is_no_access_token_and_an_access_token_no_certificate(tmp_path: Path) -> None:
    ring = _ring(tmp_path)
    tokens = Tokens(ring, "tenantry")
    jws, _ = sign_certificate({"iss": "tenantry", "aud": AUDIENCE_TENANT}, ring)
    with pytest.raises(InvalidToken):
        tokens.verify(jws, AUDIENCE_TENANT)
    someone = uuid4()
    token, _ = tokens.issue(audience=AUDIENCE_TENANT, sub=someone, ttl=60, tid=someone, sid=someone)
    with pytest.raises(CertificateError):
        verify_certificate(token)
