"""After the right password comes the second factor: no way in goes around it, and each proof is good once."""

from __future__ import annotations

import asyncio
import itertools
import re
from typing import Any

import pytest
from sqlalchemy import func, select, text, update

from tenantry.domain.identity.factors.models import FactorChallenge, FactorFailure, TotpFactor
from tests.domain.factors.support import (
    NOW,
    add_passkey,
    add_phone,
    begin_log_in,
    device_of,
    finish_log_in,
    problem_of,
    set_clock,
    signed_in,
)
from tests.world import Caller, TenantHandle, World

INVALID = (401, "second-factor-invalid")
ENDED = (401, "second-factor-challenge-invalid")


@pytest.fixture(autouse=True)
def clock(world: World) -> None:
    set_clock(world, NOW)


async def rows(tenant: TenantHandle, model: Any) -> list[Any]:
    async with tenant.world.database.transaction(tenant.context.read_scope) as transaction:
        return list(await transaction.session.scalars(select(model)))


async def event_names(tenant: TenantHandle) -> list[str]:
    answer = await tenant.get("/api/audit", params={"pageSize": 200})
    return [each["name"] for each in answer.json()["items"]]


async def test_with_an_app_the_password_alone_opens_nothing(acme: TenantHandle) -> None:
    phone, codes = await add_phone(acme)
    assert len(set(codes)) == 10
    assert all(re.fullmatch("[a-z2-7]{4}(-[a-z2-7]{4}){5}", code) for code in codes)
    asked = await begin_log_in(acme)
    assert asked["methods"] == ["code", "recoveryCode"]
    assert (asked["expiresIn"], asked["publicKey"]) == (300, None)
    assert "accessToken" not in asked
    caller = signed_in(acme, await finish_log_in(acme, asked["challenge"], code=phone.code()))
    me = (await caller.get("/api/users/me")).json()
    assert me["id"] == str(acme.id)
    assert me["secondFactor"] == {"isEnabled": True, "enrolBy": None}


async def test_a_code_is_good_once_and_so_is_a_challenge(acme: TenantHandle) -> None:
    phone, _ = await add_phone(acme)
    asked = await begin_log_in(acme)
    assert (await finish_log_in(acme, asked["challenge"], code=phone.code())).status_code == 200
    assert problem_of(await finish_log_in(acme, asked["challenge"], code=phone.code(steps=1))) == ENDED
    again = await begin_log_in(acme)
    for used in (phone.code(), phone.code(steps=-1)):
        assert problem_of(await finish_log_in(acme, again["challenge"], code=used)) == INVALID
    assert (await finish_log_in(acme, again["challenge"], code=phone.code(steps=1))).status_code == 200


async def test_of_two_who_show_one_code_at_once_one_gets_in(acme: TenantHandle) -> None:
    phone, _ = await add_phone(acme)
    first, second = await begin_log_in(acme), await begin_log_in(acme)
    answers = await asyncio.gather(
        *(finish_log_in(acme, asked["challenge"], code=phone.code()) for asked in (first, second))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 401]
    # And so with one challenge.
    set_clock(acme.world, NOW + 60)
    third = await begin_log_in(acme)
    phone.clock = NOW + 60
    answers = await asyncio.gather(*(finish_log_in(acme, third["challenge"], code=phone.code()) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401]


async def test_a_recovery_code_stands_in_once_and_its_person_is_told(acme: TenantHandle) -> None:
    _, codes = await add_phone(acme)
    asked = await begin_log_in(acme)
    shouted = codes[3].upper().replace("-", " ")
    caller = signed_in(acme, await finish_log_in(acme, asked["challenge"], recoveryCode=shouted))
    assert (await caller.get("/api/second-factor")).json()["recoveryCodes"] == 9
    again = await begin_log_in(acme)
    assert problem_of(await finish_log_in(acme, again["challenge"], recoveryCode=codes[3])) == INVALID
    assert "second_factor.recovery_code_used" in await event_names(acme)


async def test_new_recovery_codes_end_the_old(acme: TenantHandle) -> None:
    _, codes = await add_phone(acme)
    renewed = await acme.post("/api/second-factor/recovery-codes")
    assert renewed.status_code == 200
    new = renewed.json()["recoveryCodes"]
    assert not set(new) & set(codes)
    asked = await begin_log_in(acme)
    assert problem_of(await finish_log_in(acme, asked["challenge"], recoveryCode=codes[0])) == INVALID
    assert (await finish_log_in(acme, asked["challenge"], recoveryCode=new[0])).status_code == 200


async def test_without_a_factor_there_are_no_recovery_codes(acme: TenantHandle) -> None:
    refused = await acme.post("/api/second-factor/recovery-codes")
    assert problem_of(refused) == (409, "second-factor-missing")


async def test_after_a_few_wrong_codes_the_log_in_has_to_begin_anew(
    acme: TenantHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An hour between two of them, so that the brake at the door has nothing to say.
    hours = itertools.count(NOW, 3600)
    monkeypatch.setattr(acme.world.app.state.authenticator._throttle, "_clock", lambda: next(hours))
    phone, _ = await add_phone(acme)
    asked = await begin_log_in(acme)
    for left in (4, 3, 2, 1):
        answer = await finish_log_in(acme, asked["challenge"], code="000000")
        assert (problem_of(answer), answer.json()["attemptsLeft"]) == (INVALID, left)
    assert problem_of(await finish_log_in(acme, asked["challenge"], code="000000")) == ENDED
    assert problem_of(await finish_log_in(acme, asked["challenge"], code=phone.code())) == ENDED
    assert "second_factor.refused" in await event_names(acme)


async def test_wrong_codes_of_a_day_are_counted_where_redis_cannot_lose_them(acme: TenantHandle) -> None:
    phone, codes = await add_phone(acme)
    device = device_of(acme)
    await add_passkey(acme, device)
    asked = await begin_log_in(acme)
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        most = acme.world.settings.second_factor_daily_failures
        transaction.session.add_all(FactorFailure(user_id=acme.id) for _ in range(most))
    for proof in ({"code": phone.code()}, {"recoveryCode": codes[0]}):
        answer = await finish_log_in(acme, asked["challenge"], **proof)
        assert problem_of(answer) == (429, "too-many-requests")
        assert 86_000 < int(answer.headers["Retry-After"]) <= 86_401
    # What cannot be guessed need not be braked.
    passkey = device.get(asked["publicKey"])
    assert (await finish_log_in(acme, asked["challenge"], passkey=passkey)).status_code == 200


async def test_a_challenge_expires_and_is_of_its_kind_and_its_organization(
    acme: TenantHandle, globex: TenantHandle
) -> None:
    phone, _ = await add_phone(acme)
    theirs, _ = await add_phone(globex)
    asked = await begin_log_in(acme)
    token = asked["challenge"]
    other = token.replace(acme.tenant_id.hex, globex.tenant_id.hex)
    for wrong in (other, token.replace("mfa_", "rt_"), f"mfa_{acme.tenant_id.hex}_{'0' * 64}", "garbage"):
        assert problem_of(await finish_log_in(acme, wrong, code=phone.code())) == ENDED
        assert problem_of(await finish_log_in(acme, wrong, code=theirs.code())) == ENDED
    elsewhere = await acme.http.post(
        "/api/auth/login/second-factor",
        json={"challenge": token, "code": phone.code()},
        headers={"Host": f"{globex.slug}.example.com"},
    )
    assert problem_of(elsewhere) == ENDED
    # The other organization's app opens nothing here.
    assert problem_of(await finish_log_in(acme, token, code=theirs.code())) == INVALID
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.session.execute(
            update(FactorChallenge).values(expires_at=func.now() - text("interval '1 second'"))
        )
    assert problem_of(await finish_log_in(acme, token, code=phone.code())) == ENDED


async def test_neither_a_new_password_nor_a_deactivation_lets_a_log_in_that_was_begun_go_on(
    acme: TenantHandle,
) -> None:
    ann = await acme.add_user("ann", "member")
    phone, _ = await add_phone(ann)
    email = f"ann@{acme.slug}.example"
    asked = await begin_log_in(acme, email)
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.session.execute(
            text("UPDATE user_account SET hashed_password = hashed_password || 'x' WHERE id = :id"), {"id": ann.id}
        )
    assert problem_of(await finish_log_in(acme, asked["challenge"], code=phone.code())) == ENDED
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.session.execute(
            text("UPDATE user_account SET hashed_password = left(hashed_password, -1) WHERE id = :id"), {"id": ann.id}
        )
    asked = await begin_log_in(acme, email)
    assert (await acme.patch(f"/api/users/{ann.id}", json={"isActive": False})).status_code == 200
    assert problem_of(await finish_log_in(acme, asked["challenge"], code=phone.code())) == ENDED


async def test_exactly_one_factor_is_asked_for(acme: TenantHandle) -> None:
    phone, codes = await add_phone(acme)
    asked = await begin_log_in(acme)
    for proof in ({}, {"code": phone.code(), "recoveryCode": codes[0]}):
        answer = await finish_log_in(acme, asked["challenge"], **proof)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "code")


async def test_renewing_a_session_asks_for_nothing_and_proves_nothing(acme: TenantHandle) -> None:
    """A session that was opened before there was a factor goes on; what it may do recently, it may not do longer."""
    await add_phone(acme)
    answer = await acme.http.post("/api/auth/refresh", json={"refreshToken": acme.refresh_token})
    assert (answer.status_code, answer.json()["enrolBy"]) == (200, None)


async def test_an_app_counts_from_its_first_code_on(acme: TenantHandle) -> None:
    started = await acme.post("/api/second-factor/totp")
    assert started.status_code == 201
    # Not confirmed: the password is enough.
    await acme.world.log_in(acme.slug, acme.owner_email)
    assert (await acme.get("/api/second-factor")).json()["totp"] is None
    wrong = await acme.post("/api/second-factor/totp/confirm", json={"code": "000000"})
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "code")
    await add_phone(acme)
    assert problem_of(await acme.post("/api/second-factor/totp")) == (409, "totp-enrolled")
    nothing = await acme.post("/api/second-factor/totp/confirm", json={"code": "000000"})
    assert problem_of(nothing) == (409, "totp-not-started")
    assert (await acme.get("/api/second-factor")).json()["totp"]["confirmedAt"]


async def test_a_removed_app_and_its_recovery_codes_are_gone(acme: TenantHandle) -> None:
    await add_phone(acme)
    assert (await acme.delete("/api/second-factor/totp")).status_code == 204
    assert (await acme.delete("/api/second-factor/totp")).status_code == 404
    await acme.world.log_in(acme.slug, acme.owner_email)
    assert (await acme.get("/api/second-factor")).json() == {
        "totp": None,
        "passkeys": 0,
        "recoveryCodes": 0,
        "isRequired": False,
        "enrolBy": None,
    }
    assert (await event_names(acme))[:3] == ["session.opened", "second_factor.removed", "second_factor.added"]


async def test_nothing_in_the_database_is_a_secret_in_the_clear(acme: TenantHandle) -> None:
    phone, codes = await add_phone(acme)
    asked = await begin_log_in(acme)
    async with acme.world.database.transaction(acme.context.read_scope) as transaction:
        dump = ""
        for table in ("totp_factor", "recovery_code", "factor_challenge", "audit_event"):
            found = await transaction.session.execute(text(f"SELECT to_jsonb(t)::text FROM {table} t"))
            dump += "".join(found.scalars())
    from base64 import b32decode

    plain = "".join(letter for letter in codes[0] if letter.isalnum())
    for secret in (phone.secret.encode(), b32decode(phone.secret), codes[0].encode(), plain.encode()):
        assert secret.hex() not in dump
        assert secret.decode("latin-1") not in dump
    assert asked["challenge"] not in dump


async def test_the_seal_of_one_organizations_secret_does_not_open_in_another(
    acme: TenantHandle, globex: TenantHandle
) -> None:
    """Copied by somebody who can write to the database, row by row, id and all; or by an import with credentials."""
    phone, _ = await add_phone(acme)
    _, codes = await add_phone(globex)
    [row] = await rows(acme, TotpFactor)
    async with acme.world.database.transaction(acme.context.read_scope) as transaction:
        secret = await transaction.session.scalar(select(TotpFactor.secret))
    async with globex.world.database.transaction(globex.context.write_scope) as transaction:
        await transaction.session.execute(update(TotpFactor).values(id=row.id, secret=secret, last_step=None))
    asked = await begin_log_in(globex)
    answer = await finish_log_in(globex, asked["challenge"], code=phone.code())
    assert problem_of(answer) == INVALID
    assert (await finish_log_in(globex, asked["challenge"], recoveryCode=codes[0])).status_code == 200


async def test_somebody_elses_recovery_code_is_none(acme: TenantHandle) -> None:
    await add_phone(acme)
    ann = await acme.add_user("ann", "member")
    _, theirs = await add_phone(ann)
    asked = await begin_log_in(acme)
    assert problem_of(await finish_log_in(acme, asked["challenge"], recoveryCode=theirs[0])) == INVALID


async def test_a_suspended_organization_lets_nobody_finish(acme: TenantHandle, world: World) -> None:
    phone, _ = await add_phone(acme)
    asked = await begin_log_in(acme)
    suspended = await world.operator.post(f"/platform/tenants/{acme.slug}/suspend", json={"reason": "unpaid"})
    assert suspended.status_code == 200
    await world.app.state.registry.refresh()
    answer = await finish_log_in(acme, asked["challenge"], code=phone.code())
    assert problem_of(answer) == (403, "tenant-suspended")


async def test_a_caller_without_a_session_sees_no_factors(acme: TenantHandle) -> None:
    nobody = Caller(acme.http, "garbage")
    assert (await nobody.get("/api/second-factor")).status_code == 401
