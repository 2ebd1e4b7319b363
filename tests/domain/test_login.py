from __future__ import annotations

from typing import Any

import httpx
import pytest
from argon2.exceptions import VerifyMismatchError

from tenantry.kernel.security import PasswordHasher
from tests.domain.statements import recorded_statements
from tests.world import PASSWORD, TenantHandle, World

WRONG = "not the password"


class CountingArgon2:
    """argon2 itself, with a count of what it was asked."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.verified = 0

    def verify(self, encoded: str, password: bytes) -> bool:
        self.verified += 1
        return self.real.verify(encoded, password)  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@pytest.fixture
def argon2(world: World, monkeypatch: pytest.MonkeyPatch) -> CountingArgon2:
    hasher: PasswordHasher = world.app.state.hasher
    counting = CountingArgon2(hasher._argon2)
    monkeypatch.setattr(hasher, "_argon2", counting)
    return counting


async def _log_in(
    world: World, tenant: str | None, email: str, password: str, host: str = "localhost"
) -> httpx.Response:
    body = {"email": email, "password": password} | ({"tenant": tenant} if tenant else {})
    return await world.http.post("/api/auth/login", json=body, headers={"Host": host})


def _without_request_id(answer: httpx.Response) -> dict[str, Any]:
    return {name: value for name, value in answer.json().items() if name not in {"requestId", "traceId"}}


async def test_every_failed_login_answers_alike_and_costs_one_verification(
    world: World, acme: TenantHandle, globex: TenantHandle, argon2: CountingArgon2
) -> None:
    gone = await acme.add_user("gone")
    assert (await acme.patch(f"/api/users/{gone.id}", json={"isActive": False})).status_code == 200
    suspended = await world.create_tenant("suspended")
    await world.operator.post(f"/platform/tenants/{suspended.slug}/suspend")
    cases = {
        "wrong password": (acme.slug, acme.owner_email, WRONG),
        "unknown user": (acme.slug, f"nobody@{acme.slug}.example", PASSWORD),
        "unknown tenant": ("no-such-tenant", acme.owner_email, PASSWORD),
        "another tenant's user": (acme.slug, globex.owner_email, PASSWORD),
        "deactivated user": (acme.slug, f"gone@{acme.slug}.example", PASSWORD),
        "wrong password in a suspended tenant": (suspended.slug, suspended.owner_email, WRONG),
    }
    answers = {}
    for case, (tenant, email, password) in cases.items():
        argon2.verified = 0
        answer = await _log_in(world, tenant, email, password)
        assert (answer.status_code, argon2.verified) == (401, 1), case
        assert answer.headers["WWW-Authenticate"].startswith("Bearer"), case
        answers[case] = _without_request_id(answer)
    reference = answers["wrong password"]
    assert all(answer == reference for answer in answers.values()), answers


async def test_a_user_who_was_invited_and_has_no_password_yet_cannot_log_in_and_costs_the_same(
    world: World, argon2: CountingArgon2
) -> None:
    made = await world.operator.post(
        "/platform/tenants",
        json={"slug": "invited-only", "name": "Invited", "plan": "free", "ownerEmail": "ann@invited.example"},
    )
    assert made.status_code == 201
    argon2.verified = 0
    answer = await _log_in(world, "invited-only", "ann@invited.example", PASSWORD)
    assert (answer.status_code, argon2.verified) == (401, 1)


async def test_failed_logins_open_as_many_transactions(world: World, acme: TenantHandle) -> None:
    counts = {}
    for case, (tenant, email) in {
        "wrong password": (acme.slug, acme.owner_email),
        "unknown user": (acme.slug, f"nobody@{acme.slug}.example"),
        "unknown tenant": ("no-such-tenant", acme.owner_email),
    }.items():
        with recorded_statements(world.database) as statements:
            assert (await _log_in(world, tenant, email, WRONG)).status_code == 401
        counts[case] = len(statements)
    assert len(set(counts.values())) == 1, counts


async def test_an_address_is_the_same_in_any_case(world: World, acme: TenantHandle) -> None:
    assert (await _log_in(world, acme.slug, acme.owner_email.upper(), PASSWORD)).status_code == 200


async def test_the_right_password_of_a_suspended_tenant_is_told_so(world: World) -> None:
    tenant = await world.create_tenant("suspended")
    await world.operator.post(f"/platform/tenants/{tenant.slug}/suspend")
    await world.app.state.registry.refresh()
    answer = await _log_in(world, tenant.slug, tenant.owner_email, PASSWORD)
    assert answer.status_code == 403
    assert answer.json()["type"] == "/problems/tenant-suspended"


async def test_the_hosts_first_label_may_name_the_tenant(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    answer = await _log_in(world, None, acme.owner_email, PASSWORD, host=f"{acme.slug}.app.example.com")
    assert answer.status_code == 200
    assert (
        await _log_in(world, None, acme.owner_email, PASSWORD, host=f"{globex.slug}.app.example.com")
    ).status_code == 401


async def test_a_host_that_names_no_tenant_and_a_body_that_names_none_is_a_422_for_the_field(
    world: World, acme: TenantHandle
) -> None:
    answer = await _log_in(world, None, acme.owner_email, PASSWORD)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["tenant"]


async def test_host_and_body_must_name_the_same_tenant(world: World, acme: TenantHandle, globex: TenantHandle) -> None:
    answer = await _log_in(world, acme.slug, acme.owner_email, PASSWORD, host=f"{globex.slug}.app.example.com")
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["tenant"]


async def test_a_token_is_refused_on_another_tenants_host(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    assert (await acme.get("/api/teams", headers={"Host": f"{acme.slug}.example.com"})).status_code == 200
    answer = await acme.get("/api/teams", headers={"Host": f"{globex.slug}.example.com"})
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


async def test_a_login_renews_a_hash_of_other_parameters(world: World, acme: TenantHandle) -> None:
    weak = PasswordHasher(time_cost=2, memory_cost=64, parallelism=1, concurrency=1)
    old = await weak.hash(PASSWORD)
    weak.close()
    async with world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.connection.execute("UPDATE user_account SET hashed_password = $1", old)
    assert (await _log_in(world, acme.slug, acme.owner_email, PASSWORD)).status_code == 200
    async with world.database.transaction(acme.context.read_scope) as transaction:
        stored = await transaction.connection.fetchval("SELECT hashed_password FROM user_account")
    assert stored != old
    assert not world.app.state.hasher.needs_rehash(stored)
    assert (await _log_in(world, acme.slug, acme.owner_email, PASSWORD)).status_code == 200


def test_the_counting_hasher_still_tells_passwords_apart() -> None:
    hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, concurrency=1)
    counting = CountingArgon2(hasher._argon2)
    hash_ = counting.hash("right")
    assert counting.verify(hash_, b"right")
    with pytest.raises(VerifyMismatchError):
        counting.verify(hash_, b"wrong")
    hasher.close()
