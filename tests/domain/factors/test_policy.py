"""A second factor for everybody: by when, what is left to those who have none, and how it is undone for who lost it."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from sqlalchemy import select, text, update

from tenantry.domain.identity.factors.jobs import tend_second_factors
from tenantry.domain.identity.factors.models import (
    FactorChallenge,
    FactorFailure,
    SecurityPolicy,
    TotpFactor,
)
from tenantry.domain.identity.users.models import User
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
from tests.domain.machines import make_key
from tests.mail.support import box_of, post
from tests.mailserver import MailServer, open_mail_server
from tests.world import PASSWORD, Caller, TenantHandle, World

ENROL = (403, "second-factor-enrolment-required")


@pytest.fixture(autouse=True)
def clock(world: World) -> None:
    set_clock(world, NOW)


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with open_mail_server() as opened:
        yield opened


async def require(tenant: TenantHandle, *, days: int) -> None:
    answer = await tenant.patch("/api/organization/security", json={"secondFactorRequired": True, "graceDays": days})
    assert answer.status_code == 200, answer.text


async def test_at_first_nothing_is_asked_for(acme: TenantHandle) -> None:
    expected = {"secondFactorRequired": False, "requiredSince": None, "graceDays": 14, "withoutSecondFactor": 1}
    assert (await acme.get("/api/organization/security")).json() == expected
    assert (await acme.get("/api/users/me")).json()["secondFactor"] == {"isEnabled": False, "enrolBy": None}


async def test_within_the_grace_time_everybody_is_told_and_nobody_is_stopped(
    acme: TenantHandle, globex: TenantHandle
) -> None:
    ann = await acme.add_user("ann", "member")
    await require(acme, days=7)
    told = (await ann.get("/api/users/me")).json()["secondFactor"]
    assert told["isEnabled"] is False
    left = datetime.datetime.fromisoformat(told["enrolBy"]) - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(days=6, hours=23) < left <= datetime.timedelta(days=7)
    body = {"tenant": acme.slug, "email": f"ann@{acme.slug}.example", "password": PASSWORD}
    logged_in = await acme.http.post("/api/auth/login", json=body)
    assert logged_in.json()["enrolBy"] == told["enrolBy"]
    refreshed = await acme.http.post("/api/auth/refresh", json={"refreshToken": logged_in.json()["refreshToken"]})
    assert refreshed.json()["enrolBy"] == told["enrolBy"]
    assert (await ann.get("/api/teams")).status_code == 200
    # The other organization asks for nothing.
    assert (await globex.get("/api/users/me")).json()["secondFactor"]["enrolBy"] is None
    await add_phone(ann)
    assert (await ann.get("/api/users/me")).json()["secondFactor"] == {"isEnabled": True, "enrolBy": None}


async def test_afterwards_who_has_none_can_set_one_up_and_do_nothing_else(
    acme: TenantHandle, globex: TenantHandle
) -> None:
    ann = await acme.add_user("ann", "admin")
    await add_passkey(acme, device_of(acme))
    key = await make_key(ann)
    await require(acme, days=0)
    for path in ("/api/teams", "/api/users", "/api/organization", "/api/notifications", "/api/organization/security"):
        assert problem_of(await ann.get(path)) == ENROL
    assert problem_of(await ann.patch("/api/users/me", json={"name": "Ann"})) == ENROL
    assert problem_of(await ann.post("/api/api-keys", json={"name": "x", "scopes": []})) == ENROL
    # The one who has a factor, machines, and other organizations go on.
    others: tuple[Caller, ...] = (acme, key)
    for caller in others:
        assert (await caller.get("/api/roles")).status_code == 200
    assert (await globex.get("/api/teams")).status_code == 200
    assert (await ann.get("/api/users/me")).status_code == 200
    assert (await ann.get("/api/second-factor")).json()["isRequired"] is True
    again = await acme.world.log_in(acme.slug, f"ann@{acme.slug}.example")
    assert problem_of(await again.get("/api/teams")) == ENROL
    assert (await ann.post("/api/auth/step-up", json={"password": PASSWORD})).status_code == 200
    await add_phone(ann)
    # Every session of theirs, at once.
    for caller in (ann, again):
        assert (await caller.get("/api/teams")).status_code == 200
    # And taken away, it is as before.
    assert (await ann.delete("/api/second-factor/totp")).status_code == 204
    assert problem_of(await again.get("/api/teams")) == ENROL
    assert (await again.post("/api/auth/logout")).status_code == 204


async def test_when_it_is_no_longer_asked_for_everybody_goes_on(acme: TenantHandle) -> None:
    ann = await acme.add_user("ann", "member")
    await add_passkey(acme, device_of(acme))
    await require(acme, days=0)
    assert problem_of(await ann.get("/api/teams")) == ENROL
    assert (await acme.patch("/api/organization/security", json={"graceDays": 5})).status_code == 200
    assert (await ann.get("/api/teams")).status_code == 200
    await require(acme, days=0)
    assert problem_of(await ann.get("/api/teams")) == ENROL
    off = await acme.patch("/api/organization/security", json={"secondFactorRequired": False})
    assert (off.json()["secondFactorRequired"], off.json()["requiredSince"]) == (False, None)
    assert (await ann.get("/api/teams")).status_code == 200


async def test_whoever_comes_later_has_as_long_as_the_others_had(acme: TenantHandle) -> None:
    await require(acme, days=3)
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        long_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=30)
        await transaction.session.execute(update(SecurityPolicy).values(required_since=long_ago))
        await transaction.session.execute(update(User).values(joined_at=long_ago))
    new = await acme.add_user("new", "member")
    assert (await new.get("/api/teams")).status_code == 200
    owner = await acme.world.log_in(acme.slug, acme.owner_email)
    assert problem_of(await owner.get("/api/teams")) == ENROL
    # A session that missed the change is caught when it is renewed.
    assert (await acme.get("/api/teams")).status_code == 200
    renewed = await acme.http.post("/api/auth/refresh", json={"refreshToken": acme.refresh_token})
    caught = Caller(acme.http, renewed.json()["accessToken"])
    assert problem_of(await caught.get("/api/teams")) == ENROL


async def test_a_change_is_an_event_and_none_is_none(acme: TenantHandle) -> None:
    async def changes() -> int:
        items = (await acme.get("/api/audit", params={"pageSize": 200})).json()["items"]
        return sum(each["name"] == "organization.security_changed" for each in items)

    await require(acme, days=5)
    await require(acme, days=5)
    assert await changes() == 1
    for days in (-1, 91, "3"):
        answer = await acme.patch("/api/organization/security", json={"graceDays": days})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "graceDays")


async def test_an_administrator_resets_who_has_lost_everything(acme: TenantHandle, server: MailServer) -> None:
    ann = await acme.add_user("ann", "member")
    email = f"ann@{acme.slug}.example"
    await add_phone(ann)
    await add_passkey(ann, device_of(acme))
    asked = await begin_log_in(acme, email)
    await post(acme, server)
    assert (await acme.delete(f"/api/users/{ann.id}/second-factor")).status_code == 204
    assert (await ann.get("/api/users/me")).status_code == 401
    answer = await finish_log_in(acme, asked["challenge"], code="000000")
    assert answer.status_code == 401
    back = await acme.world.log_in(acme.slug, email)
    assert (await back.get("/api/second-factor")).json()["recoveryCodes"] == 0
    [told] = await post(acme, server)
    assert told.recipients == (email,)
    assert "were reset" in told.message["Subject"]
    [notified] = (await back.get("/api/notifications")).json()["items"]
    assert notified["kind"] == "second_factor.reset"
    # There is nothing left, and nobody is told of that.
    assert (await acme.delete(f"/api/users/{ann.id}/second-factor")).status_code == 204
    assert await post(acme, server) == []


async def test_nobody_resets_who_may_do_more_than_they(acme: TenantHandle) -> None:
    admin, member = await acme.add_user("admin", "admin"), await acme.add_user("member", "member")
    phone, _ = await add_phone(acme)
    assert (await admin.delete(f"/api/users/{acme.id}/second-factor")).status_code == 403
    assert (await member.delete(f"/api/users/{admin.id}/second-factor")).status_code == 403
    key = await make_key(acme, "users:write")
    assert problem_of(await key.delete(f"/api/users/{admin.id}/second-factor")) == (403, "person-required")
    assert (await acme.delete(f"/api/users/{UUID(int=1)}/second-factor")).status_code == 404
    asked = await begin_log_in(acme)
    signed_in(acme, await finish_log_in(acme, asked["challenge"], code=phone.code()))


async def test_a_factor_that_comes_or_goes_is_told_by_mail(acme: TenantHandle, server: MailServer) -> None:
    await add_phone(acme)
    [added] = await post(acme, server)
    assert (await acme.delete("/api/second-factor/totp")).status_code == 204
    [removed] = await post(acme, server)
    assert added.message["Subject"] == f"A second factor was added to your account at {acme.context.name}"
    assert removed.message["Subject"] == f"A second factor was removed from your account at {acme.context.name}"
    for mail in (added, removed):
        assert mail.recipients == (acme.owner_email,)
        assert "http" not in mail.part("plain")


async def test_only_who_may_says_what_everybody_needs(acme: TenantHandle) -> None:
    member = await acme.add_user("member", "member")
    assert (await member.get("/api/organization/security")).status_code == 200
    refused = await member.patch("/api/organization/security", json={"graceDays": 1})
    assert problem_of(refused) == (403, "permission-denied")


async def test_secrets_are_sealed_anew_after_the_key_was_rotated(
    acme: TenantHandle, globex: TenantHandle, server: MailServer
) -> None:
    phone, _ = await add_phone(acme)
    await add_phone(globex)
    vault = acme.world.app.state.vault

    async def sealed(tenant: TenantHandle) -> bytes:
        async with tenant.world.database.transaction(tenant.context.read_scope) as transaction:
            return await transaction.session.scalar(select(TotpFactor.secret))  # type: ignore[return-value]

    before, theirs = await sealed(acme), await sealed(globex)
    vault.rotate()
    assert vault.needs_resealing(before)
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        await tend_second_factors.enqueue(transaction.session)
    await box_of(acme, server).drain(acme.context)
    after = await sealed(acme)
    assert not vault.needs_resealing(after)
    assert await sealed(globex) == theirs
    asked = await begin_log_in(acme)
    signed_in(acme, await finish_log_in(acme, asked["challenge"], code=phone.code()))


async def test_what_was_begun_and_never_ended_is_forgotten(acme: TenantHandle, server: MailServer) -> None:
    phone, _ = await add_phone(acme)
    ann = await acme.add_user("ann", "member")
    assert (await ann.post("/api/second-factor/totp")).status_code == 201
    asked = await begin_log_in(acme)
    await finish_log_in(acme, asked["challenge"], code="000000")
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        session = transaction.session
        for table in ("totp_factor", "factor_failure", "factor_challenge"):
            await session.execute(text(f"UPDATE {table} SET created_at = created_at - interval '2 days'"))
        await session.execute(text("UPDATE factor_challenge SET expires_at = expires_at - interval '2 days'"))
        await tend_second_factors.enqueue(session)
    await box_of(acme, server).drain(acme.context)
    async with acme.world.database.transaction(acme.context.read_scope) as transaction:
        for model, left in ((FactorChallenge, 0), (FactorFailure, 0), (TotpFactor, 1)):
            assert len(list(await transaction.session.scalars(select(model)))) == left
    asked = await begin_log_in(acme)
    signed_in(acme, await finish_log_in(acme, asked["challenge"], code=phone.code()))
