"""Sensitive acts need more than a session that is lying about."""

from __future__ import annotations

import pytest

from tenantry.domain.identity.sessions.guessing import FREE
from tests.domain.factors.support import (
    NOW,
    add_passkey,
    add_phone,
    age_sessions,
    device_of,
    problem_of,
    set_clock,
)
from tests.domain.machines import make_account, make_key
from tests.world import PASSWORD, Caller, TenantHandle, World

STEP_UP = (403, "step-up-required")
FAILED = (403, "step-up-failed")


@pytest.fixture(autouse=True)
def clock(world: World) -> None:
    set_clock(world, NOW)


async def age(tenant: TenantHandle, caller: Caller | None = None) -> None:
    """Beyond what the tests' settings call recent."""
    await age_sessions(tenant, (caller or tenant).id, days=2)


async def is_recent(caller: Caller) -> bool:
    answer = await caller.post("/api/second-factor/passkeys/options")
    assert answer.status_code == 200 or problem_of(answer) == STEP_UP
    return answer.status_code == 200


async def test_a_log_in_is_recent_for_a_while(acme: TenantHandle) -> None:
    limit = acme.world.settings.step_up_after
    await age_sessions(acme, acme.id, seconds=limit - 60)
    assert await is_recent(acme)
    await age_sessions(acme, acme.id, seconds=limit + 1)
    assert not await is_recent(acme)
    await acme.world.log_in(acme.slug, acme.owner_email)
    assert not await is_recent(acme), "one session's proof is not another's"


async def test_a_session_from_before_the_migration_is_not_recent(acme: TenantHandle) -> None:
    from sqlalchemy import update

    from tenantry.domain.identity.sessions.models import UserSession

    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.session.execute(update(UserSession).values(authenticated_at=None))
    assert not await is_recent(acme)


async def test_renewing_the_session_is_no_proof(acme: TenantHandle) -> None:
    await age(acme)
    renewed = await acme.http.post("/api/auth/refresh", json={"refreshToken": acme.refresh_token})
    assert not await is_recent(Caller(acme.http, renewed.json()["accessToken"]))


async def test_what_is_sensitive_says_how_to_go_on(acme: TenantHandle) -> None:
    account = await make_account(acme)
    key = await make_key(acme)
    keys = f"{account}/api-keys"
    theirs = await make_key(acme, path=keys)
    team = await acme.add_team()
    ann = await acme.add_user("ann", "member")
    await age(acme)
    body = {"name": "Report", "scopes": ["roles:read"]}
    acts = [
        ("POST", "/api/api-keys", body),
        ("POST", f"/api/api-keys/{key.key_id}/rotate", {}),
        ("POST", keys, body),
        ("POST", f"{keys}/{theirs.key_id}/rotate", {}),
        ("POST", "/api/organization/exports", None),
        ("GET", f"/api/organization/exports/{key.key_id}/content", None),
        ("PATCH", "/api/organization/security", {"graceDays": 3}),
        ("POST", f"/api/teams/{team['id']}/transfer-ownership", {"userId": str(ann.id)}),
        ("POST", "/api/second-factor/totp", None),
        ("POST", "/api/second-factor/totp/confirm", {"code": "000000"}),
        ("DELETE", "/api/second-factor/totp", None),
        ("POST", "/api/second-factor/recovery-codes", None),
        ("POST", "/api/second-factor/passkeys/options", None),
        ("DELETE", f"/api/second-factor/passkeys/{key.key_id}", None),
        ("DELETE", f"/api/users/{ann.id}/second-factor", None),
    ]
    for method, path, sent in acts:
        answer = await acme.request(method, path, **({} if sent is None else {"json": sent}))
        assert problem_of(answer) == STEP_UP, (method, path, answer.text)
        assert answer.json()["methods"] == ["password"]
        assert answer.json()["maxAge"] == acme.world.settings.step_up_after
    # What is not sensitive goes on.
    assert (await acme.get("/api/users")).status_code == 200
    # Who may not do it at all is not asked to prove anything.
    await age(acme, ann)
    assert problem_of(await ann.post("/api/organization/exports")) == (403, "permission-denied")


async def test_machines_have_nothing_to_prove(acme: TenantHandle) -> None:
    key = await make_key(acme, "organization:export")
    await age(acme)
    assert (await key.post("/api/organization/exports")).status_code == 202


async def test_the_password_makes_a_session_recent(acme: TenantHandle) -> None:
    await age(acme)
    wrong = await acme.post("/api/auth/step-up", json={"password": "not the password"})
    assert problem_of(wrong) == FAILED
    assert not await is_recent(acme)
    done = await acme.post("/api/auth/step-up", json={"password": PASSWORD})
    assert (done.status_code, done.json()["expiresIn"]) == (200, acme.world.settings.step_up_after)
    assert await is_recent(acme)
    names = [each["name"] for each in (await acme.get("/api/audit")).json()["items"]]
    assert names[0] == "session.stepped_up"


async def test_with_a_second_factor_the_password_is_not_enough(acme: TenantHandle) -> None:
    phone, codes = await add_phone(acme)
    await age(acme)
    refused = await acme.post("/api/auth/step-up", json={"password": PASSWORD})
    assert (problem_of(refused), refused.json()["methods"]) == (STEP_UP, ["code", "recoveryCode"])
    assert problem_of(await acme.post("/api/auth/step-up", json={"code": phone.code(steps=-1)})) == FAILED
    assert (await acme.post("/api/auth/step-up", json={"code": phone.code()})).status_code == 200
    assert await is_recent(acme)
    await age(acme)
    assert problem_of(await acme.post("/api/auth/step-up", json={"code": phone.code()})) == FAILED
    assert (await acme.post("/api/auth/step-up", json={"recoveryCode": codes[0]})).status_code == 200


async def test_a_passkey_steps_up_by_a_challenge_of_the_session(acme: TenantHandle) -> None:
    device = device_of(acme)
    await add_passkey(acme, device)
    await age(acme)
    asked = (await acme.post("/api/auth/step-up/options")).json()
    passkey = device.get(asked["publicKey"])
    body = {"challenge": asked["challenge"], "passkey": passkey}
    # Somebody else's session, although it is the same organization's.
    ann = await acme.add_user("ann", "admin")
    await add_passkey(ann, device_of(acme))
    assert problem_of(await ann.post("/api/auth/step-up", json=body)) == FAILED
    assert (await acme.post("/api/auth/step-up", json=body)).status_code == 200
    assert await is_recent(acme)
    await age(acme)
    assert problem_of(await acme.post("/api/auth/step-up", json=body)) == FAILED
    # A wrong answer uses the challenge up as well.
    asked = (await acme.post("/api/auth/step-up/options")).json()
    device.origin = "https://evil.example"
    bad = device.get(asked["publicKey"])
    assert problem_of(await acme.post("/api/auth/step-up", json={**asked_of(asked), "passkey": bad})) == FAILED
    device.origin = device_of(acme).origin
    good = device.get(asked["publicKey"])
    assert problem_of(await acme.post("/api/auth/step-up", json={**asked_of(asked), "passkey": good})) == FAILED


def asked_of(options: dict[str, str]) -> dict[str, str]:
    return {"challenge": options["challenge"]}


async def test_exactly_one_proof_is_asked_for(acme: TenantHandle) -> None:
    for body in ({}, {"password": PASSWORD, "code": "000000"}):
        assert (await acme.post("/api/auth/step-up", json=body)).status_code == 422
    body = {"password": PASSWORD, "challenge": "something"}
    answer = await acme.post("/api/auth/step-up", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "challenge")


async def test_whoever_guesses_within_a_session_is_braked_as_at_the_door(
    acme: TenantHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acme.world.app.state.authenticator._throttle, "_clock", lambda: NOW)
    for _ in range(FREE + 1):
        assert problem_of(await acme.post("/api/auth/step-up", json={"password": "wrong"})) == FAILED
    refused = await acme.post("/api/auth/step-up", json={"password": PASSWORD})
    assert problem_of(refused) == (429, "too-many-requests")


async def test_another_organizations_code_proves_nothing(acme: TenantHandle, globex: TenantHandle) -> None:
    await add_phone(acme)
    theirs, codes = await add_phone(globex)
    await age(acme)
    for proof in ({"code": theirs.code()}, {"recoveryCode": codes[0]}):
        assert problem_of(await acme.post("/api/auth/step-up", json=proof)) == FAILED
    assert not await is_recent(acme)
