"""Signing in by a real provider: who gets in, as whom, and with which roles."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.domain.sso.provider import Provider
from tests.domain.sso.support import CALLBACK, Browser, connect, problem_of, query_of, whoever
from tests.world import PASSWORD, TenantHandle, World


async def connect_real(provider: Provider, tenant: TenantHandle, **fields: Any) -> dict[str, Any]:
    """A connection to the provider, of a client of the tenant's own."""
    client = provider.register(CALLBACK, method=fields.pop("method", "client_secret_basic"))
    given = {"issuer": provider.issuer, "clientId": client["client_id"], "clientSecret": client["client_secret"]}
    return await connect(tenant, **{**given, "domains": [f"{tenant.slug}.example"], **fields})


async def go(browser: Browser, provider: Provider, tenant: TenantHandle, subject: str, **where: Any) -> dict[str, str]:
    """To the provider, be `subject` there, and come back; what the front end is told."""
    url = await browser.set_off(tenant, **where)
    return await browser.come_back(tenant, await provider.sign_in(url, subject))


def known(provider: Provider, tenant: TenantHandle, name: str, **claims: Any) -> str:
    """Somebody of the tenant's domain whom the provider knows; their subject."""
    subject = f"{tenant.slug}|{name}"
    email = f"{name}@{tenant.slug}.example"
    provider.know(subject, **{"email": email, "email_verified": True, "name": name.title(), **claims})
    return subject


async def test_whoever_has_no_account_gets_one_where_the_organization_wants_that(
    browser: Browser, provider: Provider, acme: TenantHandle
) -> None:
    await connect_real(provider, acme, provisionsUsers=True, defaultRoles=["viewer"])
    subject = known(provider, acme, "ann")
    caller = await browser.sign_in(acme, await go(browser, provider, acme, subject))
    me = await whoever(caller)
    assert (me["email"], me["name"], me["isVerified"]) == (f"ann@{acme.slug}.example", "Ann", True)
    assert [role["slug"] for role in me["roles"]] == ["viewer"]
    assert me["lastLoginAt"] is not None
    again = await whoever(await browser.sign_in(acme, await go(browser, provider, acme, subject)))
    assert again["id"] == me["id"]
    refreshed = await browser.http.post("/api/auth/refresh", json={"refreshToken": caller.refresh_token})
    assert refreshed.status_code == 200
    password = await browser.http.post(
        "/api/auth/login", json={"tenant": acme.slug, "email": me["email"], "password": PASSWORD}
    )
    assert password.status_code == 401
    trail = (await acme.get("/api/audit", params={"pageSize": 200})).json()["items"]
    assert [(each["name"], each["actor"]) for each in trail if each["actor"] == f"user:{me['id']}"][-3:] == [
        ("session.opened", f"user:{me['id']}"),
        ("sso_identity.linked", f"user:{me['id']}"),
        ("user.created", f"user:{me['id']}"),
    ]


async def test_whoever_has_no_account_gets_none_by_default(
    browser: Browser, provider: Provider, acme: TenantHandle
) -> None:
    await connect_real(provider, acme)
    told = await go(browser, provider, acme, known(provider, acme, "ann"))
    assert told == {"error": "sso-refused", "reason": "no-account"}
    assert (await acme.get("/api/users")).json()["total"] == 1


async def test_an_account_is_linked_by_its_verified_address_and_from_then_on_by_the_subject(
    browser: Browser, provider: Provider, acme: TenantHandle
) -> None:
    connection = await connect_real(provider, acme)
    ann = await acme.add_user("ann", "member")
    subject = known(provider, acme, "ann", email=f"ANN@{acme.slug}.example")
    assert (await whoever(await browser.sign_in(acme, await go(browser, provider, acme, subject))))["id"] == str(ann.id)
    # Her address there is another now, and of nobody's domain: she is who she was.
    provider.know(subject, email="ann@elsewhere.example", email_verified=False)
    assert (await whoever(await browser.sign_in(acme, await go(browser, provider, acme, subject))))["id"] == str(ann.id)
    listed = await acme.get(f"/api/sso/connections/{connection['id']}/identities")
    [identity] = listed.json()["items"]
    assert (identity["subject"], identity["user"]["id"]) == (subject, str(ann.id))


async def test_an_address_that_is_somebody_elses_now_opens_nobodys_account(
    browser: Browser, provider: Provider, acme: TenantHandle
) -> None:
    connection = await connect_real(provider, acme)
    ann = await acme.add_user("ann", "member")
    path = f"/api/sso/connections/{connection['id']}/identities"
    await browser.sign_in(acme, await go(browser, provider, acme, known(provider, acme, "ann")))
    provider.know(f"{acme.slug}|second", email=f"ann@{acme.slug}.example", email_verified=True)
    told = await go(browser, provider, acme, f"{acme.slug}|second")
    assert told == {"error": "sso-refused", "reason": "another-subject"}
    # Unless an administrator says that it is the same person.
    [identity] = (await acme.get(path)).json()["items"]
    assert (await acme.delete(f"{path}/{identity['id']}")).status_code == 204
    caller = await browser.sign_in(acme, await go(browser, provider, acme, f"{acme.slug}|second"))
    assert (await whoever(caller))["id"] == str(ann.id)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"email_verified": False}, "email-unverified"),
        ({"email_verified": "true"}, "email-unverified"),
        ({"email_verified": None}, "email-unverified"),
        ({"email": None}, "email-unverified"),
        ({"email": "no address"}, "email-unverified"),
        ({"email": "ann@elsewhere.example"}, "email-domain"),
    ],
    ids=str,
)
async def test_an_address_that_is_not_proven_or_not_of_the_domains_opens_no_account(
    browser: Browser, provider: Provider, acme: TenantHandle, claims: dict[str, Any], reason: str
) -> None:
    await connect_real(provider, acme, provisionsUsers=True)
    await acme.add_user("ann", "admin")
    told = await go(browser, provider, acme, known(provider, acme, "ann", **claims))
    assert told == {"error": "sso-refused", "reason": reason}
    assert (await acme.get("/api/users")).json()["total"] == 2


async def test_what_was_set_up_on_an_unproven_address_ends_when_whose_it_is_comes(
    browser: Browser, provider: Provider, world: World, acme: TenantHandle
) -> None:
    await connect_real(provider, acme)
    squatter = await acme.add_user("ann", "member")
    key = await squatter.post("/api/api-keys", json={"name": "Back door", "scopes": ["teams:read"]})
    assert key.status_code == 201
    caller = await browser.sign_in(acme, await go(browser, provider, acme, known(provider, acme, "ann")))
    assert (await whoever(caller))["isVerified"]
    assert (await squatter.get("/api/users/me")).status_code == 401
    with_key = await world.http.get("/api/teams", headers={"Authorization": f"Bearer {key.json()['key']}"})
    assert with_key.status_code == 401
    login = {"tenant": acme.slug, "email": f"ann@{acme.slug}.example", "password": PASSWORD}
    assert (await world.http.post("/api/auth/login", json=login)).status_code == 401


async def test_whoever_was_invited_has_come_and_the_link_is_good_no_more(
    browser: Browser, provider: Provider, acme: TenantHandle
) -> None:
    await connect_real(provider, acme)
    invited = await acme.post("/api/invitations", json={"email": f"ann@{acme.slug}.example", "roles": ["viewer"]})
    assert invited.status_code == 201
    caller = await browser.sign_in(acme, await go(browser, provider, acme, known(provider, acme, "ann")))
    assert (await whoever(caller))["id"] == invited.json()["userId"]
    [invitation] = (await acme.get("/api/invitations")).json()["items"]
    assert invitation["status"] == "accepted"


async def test_whoever_was_deactivated_stays_out(browser: Browser, provider: Provider, acme: TenantHandle) -> None:
    await connect_real(provider, acme, provisionsUsers=True)
    subject = known(provider, acme, "ann")
    me = await whoever(await browser.sign_in(acme, await go(browser, provider, acme, subject)))
    told = await go(browser, provider, acme, subject)
    assert (await acme.patch(f"/api/users/{me['id']}", json={"isActive": False})).status_code == 200
    # Between coming back and the trade, as well.
    assert problem_of(await browser.trade(told["code"])) == (400, "/problems/sso-code-invalid")
    assert await go(browser, provider, acme, subject) == {"error": "sso-refused", "reason": "deactivated"}


async def test_roles_follow_the_claim_at_each_log_in(browser: Browser, provider: Provider, acme: TenantHandle) -> None:
    mapping = [{"value": "staff", "role": "member"}, {"value": "it", "role": "admin"}]
    await connect_real(
        provider, acme, provisionsUsers=True, roleClaim="groups", roleMapping=mapping, defaultRoles=[], scopes=["email"]
    )

    async def roles(*groups: str) -> list[str]:
        told = await go(browser, provider, acme, known(provider, acme, "ann", groups=list(groups)))
        return sorted(role["slug"] for role in (await whoever(await browser.sign_in(acme, told)))["roles"])

    assert await roles("staff", "canteen") == ["member"]
    assert await roles("staff", "it") == ["admin", "member"]
    assert await roles("it") == ["admin"]
    told = await go(browser, provider, acme, known(provider, acme, "ann", groups=["canteen"]))
    assert told == {"error": "sso-refused", "reason": "no-role"}
    # Without the claim nobody is made.
    assert await go(browser, provider, acme, known(provider, acme, "bob")) == {
        "error": "sso-refused",
        "reason": "no-role",
    }
    assert (await acme.get("/api/users")).json()["total"] == 2


async def test_an_owner_does_not_come_this_way_unless_an_owner_has_allowed_it(
    browser: Browser, provider: Provider, acme: TenantHandle
) -> None:
    connection = await connect_real(
        provider, acme, roleClaim="groups", roleMapping=[{"value": "staff", "role": "member"}]
    )
    subject = known(provider, acme, "owner", groups=["staff"])
    assert await go(browser, provider, acme, subject) == {"error": "sso-refused", "reason": "owner"}
    path = f"/api/sso/connections/{connection['id']}"
    assert (await acme.patch(path, json={"ownersAllowed": True})).status_code == 200
    me = await whoever(await browser.sign_in(acme, await go(browser, provider, acme, subject)))
    # And stays one: the mapping is not about owners.
    assert (me["id"], sorted(role["slug"] for role in me["roles"])) == (str(acme.id), ["member", "owner"])
    # The password is still the owner's, and so is the session of before.
    await browser.world.log_in(acme.slug, acme.owner_email)
    assert (await acme.get("/api/users/me")).status_code == 200


async def test_the_last_owner_stays_one_whatever_the_provider_says(
    browser: Browser, provider: Provider, acme: TenantHandle
) -> None:
    mapping = [{"value": "staff", "role": "member"}, {"value": "bosses", "role": "owner"}]
    await connect_real(
        provider, acme, provisionsUsers=True, ownersAllowed=True, roleClaim="groups", roleMapping=mapping
    )

    async def roles(name: str, *groups: str) -> list[str]:
        told = await go(browser, provider, acme, known(provider, acme, name, groups=list(groups)))
        return sorted(role["slug"] for role in (await whoever(await browser.sign_in(acme, told)))["roles"])

    assert await roles("owner", "staff") == ["member", "owner"]
    assert await roles("ann", "bosses") == ["owner"]
    # Now there is another one.
    assert await roles("owner", "staff") == ["member"]
    assert await roles("ann", "staff") == ["member", "owner"]


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_a_provider_is_shown_the_secret_in_the_way_that_it_says(
    browser: Browser, provider: Provider, acme: TenantHandle, method: str
) -> None:
    """It says nothing, which stands for the first; a client that is to use the other is refused."""
    await connect_real(provider, acme, provisionsUsers=True, method=method)
    told = await go(browser, provider, acme, known(provider, acme, "ann"))
    assert told.keys() == ({"code"} if method == "client_secret_basic" else {"error"})


async def test_whoever_says_no_at_the_provider_is_told_so(
    browser: Browser, provider: Provider, acme: TenantHandle
) -> None:
    connection = await connect_real(provider, acme)
    denied = await provider.deny(await browser.set_off(acme))
    state = query_of(await browser.set_off(acme))["state"]
    # This provider forgets the state that it was given.
    assert query_of(denied)["error"] == "access_denied"
    assert await browser.come_back(acme, f"{CALLBACK}?error=access_denied&state={state}") == {"error": "sso-denied"}
    found = (await acme.get(f"/api/sso/connections/{connection['id']}")).json()
    assert found["lastFailedAt"] is None


async def test_a_secret_that_is_wrong_is_the_connections_last_failure_until_somebody_gets_in(
    browser: Browser, provider: Provider, acme: TenantHandle
) -> None:
    connection = await connect_real(provider, acme, provisionsUsers=True)
    path = f"/api/sso/connections/{connection['id']}"
    good = provider.register(CALLBACK)
    assert (await acme.patch(path, json={"clientSecret": "another"})).status_code == 200
    subject = known(provider, acme, "ann")
    assert await go(browser, provider, acme, subject) == {"error": "sso-provider"}
    assert (await acme.get(path)).json()["lastFailure"] == "The token endpoint has refused: invalid_client."
    changed = await acme.patch(path, json={"clientId": good["client_id"], "clientSecret": good["client_secret"]})
    assert changed.status_code == 200
    await browser.sign_in(acme, await go(browser, provider, acme, subject))
    found = (await acme.get(path)).json()
    assert (found["lastFailure"], found["lastFailedAt"]) == (None, None)
    assert found["lastUsedAt"] is not None


async def test_of_two_windows_in_which_somebody_comes_for_the_first_time_both_get_in(
    world: World, provider: Provider, acme: TenantHandle
) -> None:
    await connect_real(provider, acme, provisionsUsers=True)
    subject = known(provider, acme, "ann")
    browser = Browser(world)
    urls = [await provider.sign_in(await browser.set_off(acme), subject) for _ in range(2)]
    told = await asyncio.gather(*(browser.come_back(acme, url) for url in urls))
    callers = [await browser.sign_in(acme, each) for each in told]
    assert len({(await whoever(caller))["id"] for caller in callers}) == 1
    await browser.http.aclose()


async def test_the_same_person_of_one_provider_is_another_in_another_organization(
    browser: Browser, provider: Provider, acme: TenantHandle, globex: TenantHandle
) -> None:
    for tenant in (acme, globex):
        await connect_real(provider, tenant, provisionsUsers=True, domains=["people.example"])
    provider.know("ann", email="ann@people.example", email_verified=True)
    here, there = [
        await browser.sign_in(tenant, await go(browser, provider, tenant, "ann", email="x@people.example"))
        for tenant in (acme, globex)
    ]
    assert (await whoever(here))["id"] != (await whoever(there))["id"]
    for tenant in (acme, globex):
        assert (await tenant.get("/api/users")).json()["total"] == 2
