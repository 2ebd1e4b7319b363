"""Passkeys: after the password, in place of it, and never in another organization than their own."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from tenantry.domain.identity.factors.models import Passkey
from tenantry.domain.identity.factors.relying_party import RelyingParty, user_handle
from tenantry.kernel.settings import Settings
from tests.authenticator import Device, unpadded
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

INVALID = (400, "passkey-invalid")
WRONG = (401, "second-factor-invalid")


@pytest.fixture(autouse=True)
def clock(world: World) -> None:
    set_clock(world, NOW)


async def ask(tenant: TenantHandle, slug: str | None = None) -> dict[str, Any]:
    answer = await tenant.http.post("/api/auth/passkeys/options", json={"tenant": slug or tenant.slug})
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def enter(tenant: TenantHandle, challenge: str, passkey: dict[str, Any], **arguments: Any) -> httpx.Response:
    body = {"tenant": tenant.slug, "challenge": challenge, "passkey": passkey}
    return await tenant.http.post("/api/auth/passkeys/login", json=body, **arguments)


async def test_a_passkey_is_the_second_factor(acme: TenantHandle) -> None:
    device = device_of(acme)
    made = await add_passkey(acme, device, "My laptop")
    assert (made["name"], made["isBackedUp"], len(made["recoveryCodes"])) == ("My laptop", True, 10)
    asked = await begin_log_in(acme)
    assert asked["methods"] == ["passkey", "recoveryCode"]
    options = asked["publicKey"]
    assert (options["rpId"], options["userVerification"]) == ("app.example.com", "preferred")
    assert [each["transports"] for each in options["allowCredentials"]] == [["internal", "hybrid"]]
    answer = await finish_log_in(acme, asked["challenge"], passkey=device.get(options))
    caller = signed_in(acme, answer)
    [listed] = (await caller.get("/api/second-factor/passkeys")).json()["items"]
    assert listed["lastUsedAt"] is not None
    # One that asks for no fingerprint is a second factor all the same.
    device.verifies = False
    asked = await begin_log_in(acme)
    signed_in(acme, await finish_log_in(acme, asked["challenge"], passkey=device.get(asked["publicKey"])))


async def test_a_passkey_alone_logs_in(acme: TenantHandle) -> None:
    device = device_of(acme)
    await add_passkey(acme, device)
    asked = await ask(acme)
    options = asked["publicKey"]
    assert (options["allowCredentials"], options["userVerification"]) == ([], "required")
    caller = signed_in(acme, await enter(acme, asked["challenge"], device.get(options)))
    assert (await caller.get("/api/users/me")).json()["id"] == str(acme.id)


async def test_alone_it_must_have_asked_for_a_fingerprint_and_say_whose_it_is(acme: TenantHandle) -> None:
    for trait in ("verifies", "says_whose"):
        device = device_of(acme)
        await add_passkey(acme, device)
        setattr(device, trait, False)
        asked = await ask(acme)
        assert problem_of(await enter(acme, asked["challenge"], device.get(asked["publicKey"]))) == INVALID


async def test_a_challenge_is_good_once_even_where_two_come_at_once(acme: TenantHandle) -> None:
    device = device_of(acme, counts=False)
    await add_passkey(acme, device)
    asked = await ask(acme)
    passkey = device.get(asked["publicKey"])
    answers = await asyncio.gather(*(enter(acme, asked["challenge"], passkey) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400]
    assert problem_of(await enter(acme, asked["challenge"], passkey)) == INVALID
    # And what was signed for one log-in is nothing to another.
    again = await ask(acme)
    assert problem_of(await enter(acme, again["challenge"], passkey)) == INVALID


async def test_another_organizations_passkey_opens_nothing(acme: TenantHandle, globex: TenantHandle) -> None:
    """They have one domain, so that a browser offers it; of whichever page it was, and under whichever name."""
    theirs = device_of(globex)
    await add_passkey(globex, theirs)
    for page in (acme, globex):
        theirs.origin = f"https://{page.slug}.app.example.com"
        asked = await ask(acme)
        assert problem_of(await enter(acme, asked["challenge"], theirs.get(asked["publicKey"]))) == INVALID
    # With the handle of somebody here.
    for held in theirs.held.values():
        held.user_handle = user_handle(acme.tenant_id, acme.id)  # type: ignore[arg-type]
    asked = await ask(acme)
    assert problem_of(await enter(acme, asked["challenge"], theirs.get(asked["publicKey"]))) == INVALID
    # As a second factor.
    await add_passkey(acme, device_of(acme))
    begun = await begin_log_in(acme)
    options = {**begun["publicKey"], "allowCredentials": []}
    assert problem_of(await finish_log_in(acme, begun["challenge"], passkey=theirs.get(options))) == WRONG
    # A challenge of one is none to the other.
    here = device_of(globex)
    await add_passkey(globex, here)
    asked = await ask(acme)
    assert problem_of(await enter(globex, asked["challenge"], here.get(asked["publicKey"]))) == INVALID


async def test_a_row_that_is_copied_into_another_organization_opens_nothing_there(
    acme: TenantHandle, globex: TenantHandle
) -> None:
    """The same person's id and public key there: the user handle names the organization that the passkey is of."""
    device = device_of(acme)
    await add_passkey(acme, device)
    await add_passkey(globex, device_of(globex))
    async with acme.world.database.transaction(acme.context.read_scope) as transaction:
        row = (await transaction.session.execute(select(Passkey.credential_id, Passkey.public_key))).one()
    async with globex.world.database.transaction(globex.context.write_scope) as transaction:
        await transaction.session.execute(
            update(Passkey).values(credential_id=row.credential_id, public_key=row.public_key)
        )
    device.origin = f"https://{globex.slug}.app.example.com"
    asked = await ask(globex)
    assert problem_of(await enter(globex, asked["challenge"], device.get(asked["publicKey"]))) == INVALID
    begun = await begin_log_in(globex)
    assert problem_of(await finish_log_in(globex, begun["challenge"], passkey=device.get(begun["publicKey"]))) == WRONG


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://{}.app.example.com", "https://{}.app.example.com:8443"]
)
async def test_another_page_than_the_organizations_own_cannot_use_it(acme: TenantHandle, origin: str) -> None:
    device = device_of(acme)
    await add_passkey(acme, device)
    device.origin = origin.format(acme.slug)
    asked = await ask(acme)
    assert problem_of(await enter(acme, asked["challenge"], device.get(asked["publicKey"]))) == INVALID
    begun = await begin_log_in(acme)
    assert problem_of(await finish_log_in(acme, begun["challenge"], passkey=device.get(begun["publicKey"]))) == WRONG
    options = await acme.post("/api/second-factor/passkeys/options")
    phished = Device(device.origin).create(options.json()["publicKey"])
    made = {"challenge": options.json()["challenge"], "name": "Phished", "passkey": phished}
    assert problem_of(await acme.post("/api/second-factor/passkeys", json=made)) == INVALID


async def test_a_copy_falls_behind_its_count_and_is_refused(acme: TenantHandle) -> None:
    device = device_of(acme)
    await add_passkey(acme, device)
    for _ in range(2):
        asked = await ask(acme)
        signed_in(acme, await enter(acme, asked["challenge"], device.get(asked["publicKey"])))
    for held in device.held.values():
        held.count -= 1
    asked = await ask(acme)
    assert problem_of(await enter(acme, asked["challenge"], device.get(asked["publicKey"]))) == INVALID


async def test_what_was_changed_on_the_way_is_refused(acme: TenantHandle) -> None:
    device = device_of(acme)
    await add_passkey(acme, device)
    for name in ("signature", "authenticatorData", "clientDataJSON", "userHandle"):
        asked = await ask(acme)
        passkey = device.get(asked["publicKey"])
        octets = bytearray(base64.urlsafe_b64decode(passkey["response"][name] + "=="))
        octets[-1] ^= 1
        passkey["response"][name] = unpadded(bytes(octets))
        assert problem_of(await enter(acme, asked["challenge"], passkey)) == INVALID
    for garbage in ("AA", "A" * 20_000):
        asked = await ask(acme)
        passkey = device.get(asked["publicKey"])
        passkey["response"] |= dict.fromkeys(("signature", "authenticatorData", "clientDataJSON"), garbage)
        assert problem_of(await enter(acme, asked["challenge"], passkey)) == INVALID


async def test_an_organization_that_is_none_is_answered_like_one(acme: TenantHandle) -> None:
    device = device_of(acme)
    await add_passkey(acme, device)
    asked = await ask(acme, "nobody-at-all")
    assert asked["publicKey"].keys() == (await ask(acme))["publicKey"].keys()
    body = {"tenant": "nobody-at-all", "challenge": asked["challenge"], "passkey": device.get(asked["publicKey"])}
    nobody = await acme.http.post("/api/auth/passkeys/login", json=body)
    unknown = device_of(acme)
    held = next(iter(device.held.values()))
    unknown.held = {b"unknown": held}
    asked = await ask(acme)
    somebody = await enter(acme, asked["challenge"], unknown.get(asked["publicKey"]))
    for answer in (nobody, somebody):
        assert problem_of(answer) == INVALID
    assert nobody.json()["detail"] == somebody.json()["detail"]


async def test_a_deactivated_person_is_not_let_in_by_a_passkey(acme: TenantHandle) -> None:
    ann = await acme.add_user("ann", "member")
    device = device_of(acme)
    await add_passkey(ann, device)
    assert (await acme.patch(f"/api/users/{ann.id}", json={"isActive": False})).status_code == 200
    asked = await ask(acme)
    assert problem_of(await enter(acme, asked["challenge"], device.get(asked["publicKey"]))) == INVALID


async def test_a_suspended_organization_is_named_to_who_has_proved_themselves(acme: TenantHandle, world: World) -> None:
    device = device_of(acme)
    await add_passkey(acme, device)
    suspended = await world.operator.post(f"/platform/tenants/{acme.slug}/suspend", json={"reason": "unpaid"})
    assert suspended.status_code == 200
    await world.app.state.registry.refresh()
    asked = await ask(acme)
    passkey = device.get(asked["publicKey"])
    assert problem_of(await enter(acme, asked["challenge"], passkey)) == (403, "tenant-suspended")
    asked = await ask(acme)
    passkey = device.get(asked["publicKey"])
    passkey["response"]["signature"] = "AAAA"
    assert problem_of(await enter(acme, asked["challenge"], passkey)) == INVALID


async def test_a_passkey_is_registered_once_by_the_session_that_asked(acme: TenantHandle) -> None:
    device = device_of(acme)
    options = (await acme.post("/api/second-factor/passkeys/options")).json()
    made = {"challenge": options["challenge"], "name": "Laptop", "passkey": device.create(options["publicKey"])}
    elsewhere = await acme.world.log_in(acme.slug, acme.owner_email)
    ann = await acme.add_user("ann", "member")
    for other in (elsewhere, ann):
        assert problem_of(await other.post("/api/second-factor/passkeys", json=made)) == INVALID
    assert (await acme.post("/api/second-factor/passkeys", json=made)).status_code == 201
    assert problem_of(await acme.post("/api/second-factor/passkeys", json=made)) == INVALID
    # Nor by somebody else, with a challenge of their own, and a device that does not mind.
    theirs = (await ann.post("/api/second-factor/passkeys/options")).json()
    [credential_id] = device.held
    again = Device(device.origin)
    answer = again.create(theirs["publicKey"])
    data = base64.urlsafe_b64decode(answer["response"]["attestationObject"] + "==")
    forged = data.replace(next(iter(again.held)), credential_id)
    answer |= {"id": unpadded(credential_id), "rawId": unpadded(credential_id)}
    answer["response"]["attestationObject"] = unpadded(forged)
    body = {"challenge": theirs["challenge"], "name": "Taken", "passkey": answer}
    assert problem_of(await ann.post("/api/second-factor/passkeys", json=body)) == (409, "conflict")


async def test_a_device_is_told_what_it_has_and_nobody_has_more_than_twenty(
    acme: TenantHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenantry.domain.identity.factors.service.MOST_PASSKEYS", 2)
    device = device_of(acme)
    first = await add_passkey(acme, device)
    options = (await acme.post("/api/second-factor/passkeys/options")).json()["publicKey"]
    assert [each["id"] for each in options["excludeCredentials"]] == [unpadded(next(iter(device.held)))]
    assert options["user"]["id"] == unpadded(user_handle(acme.tenant_id, acme.id))  # type: ignore[arg-type]
    assert (await add_passkey(acme, device_of(acme)))["recoveryCodes"] == []
    refused = await acme.post("/api/second-factor/passkeys/options")
    assert problem_of(refused) == (409, "too-many-passkeys")
    assert (await acme.delete(f"/api/second-factor/passkeys/{first['id']}")).status_code == 204
    assert (await acme.post("/api/second-factor/passkeys/options")).status_code == 200


async def test_ones_own_passkeys_are_listed_renamed_and_deleted_and_nobody_elses(acme: TenantHandle) -> None:
    ann = await acme.add_user("ann", "admin")
    theirs = await add_passkey(ann, device_of(acme))
    device = device_of(acme)
    mine = await add_passkey(acme, device, "Old")
    path = f"/api/second-factor/passkeys/{mine['id']}"
    renamed = await acme.patch(path, json={"name": "New"})
    assert (renamed.status_code, renamed.json()["name"]) == (200, "New")
    listed = (await acme.get("/api/second-factor/passkeys", params={"search": "new"})).json()
    assert [each["id"] for each in listed["items"]] == [mine["id"]]
    foreign = f"/api/second-factor/passkeys/{theirs['id']}"
    assert (await acme.patch(foreign, json={"name": "Mine"})).status_code == 404
    assert (await acme.delete(foreign)).status_code == 404
    assert (await acme.delete(path)).status_code == 204
    asked = await ask(acme)
    assert problem_of(await enter(acme, asked["challenge"], device.get(asked["publicKey"]))) == INVALID
    # The last factor went, and the recovery codes with it.
    await acme.world.log_in(acme.slug, acme.owner_email)


async def test_recovery_codes_stay_while_another_factor_does(acme: TenantHandle) -> None:
    _, codes = await add_phone(acme)
    made = await add_passkey(acme, device_of(acme))
    assert made["recoveryCodes"] == []
    assert (await acme.delete("/api/second-factor/totp")).status_code == 204
    asked = await begin_log_in(acme)
    assert asked["methods"] == ["passkey", "recoveryCode"]
    signed_in(acme, await finish_log_in(acme, asked["challenge"], recoveryCode=codes[0]))


async def test_without_redis_the_password_still_opens(acme: TenantHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    from redis.exceptions import ConnectionError as RedisConnectionError

    async def away(*_: object, **__: object) -> None:
        raise RedisConnectionError("away")

    monkeypatch.setattr(acme.world.app.state.redis, "set", away)
    answer = await acme.http.post("/api/auth/passkeys/options", json={"tenant": acme.slug})
    assert problem_of(answer) == (503, "unavailable")
    await acme.world.log_in(acme.slug, acme.owner_email)


@pytest.mark.parametrize(
    ("settings", "domain", "origins"),
    [
        ({}, "localhost", ["http://localhost:8000"]),
        ({"base_domain": "app.example.com"}, "app.example.com", ["https://acme.app.example.com"]),
        ({"app_url": "https://{tenant}.app.example.com"}, "app.example.com", ["https://acme.app.example.com"]),
        ({"app_url": "https://app.example.com/{tenant}/"}, "app.example.com", ["https://app.example.com"]),
        (
            {"base_domain": "api.example.com", "app_url": "https://www.example.com", "passkey_domain": "example.com"},
            "example.com",
            ["https://www.example.com"],
        ),
        (
            {"passkey_domain": "example.com", "passkey_origins": "https://{tenant}.example.com,https://example.com"},
            "example.com",
            ["https://acme.example.com", "https://example.com"],
        ),
    ],
)
def test_the_domain_follows_from_the_settings(settings: dict[str, Any], domain: str, origins: list[str]) -> None:
    party = RelyingParty(Settings(**settings))

    class Acme:
        slug = "acme"

    assert (party.id, party.origins(Acme())) == (domain, origins)  # type: ignore[arg-type]


def test_an_origin_that_is_not_below_the_domain_is_refused_at_the_start() -> None:
    for origin in ("https://evil.example", "https://badexample.com", "https://acme.example.com/path", "example.com"):
        with pytest.raises(ValueError, match="origins below"):
            Settings(passkey_domain="example.com", passkey_origins=origin)  # type: ignore[arg-type]


async def test_a_stranger_learns_nothing_of_passkeys(acme: TenantHandle) -> None:
    nobody = Caller(acme.http, "garbage")
    for path in ("/api/second-factor/passkeys/options", "/api/auth/step-up/options"):
        assert (await nobody.post(path)).status_code == 401
