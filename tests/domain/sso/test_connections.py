"""Connections: whoever keeps one may do all that it can, and nobody reads a secret back."""

from __future__ import annotations

import logging
from ipaddress import ip_network
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import undefer_group

from tenantry.domain.identity.sso.jobs import tend_sso
from tenantry.domain.identity.sso.models import SsoConnection, SsoLogin
from tenantry.domain.identity.sso.service import _check_issuer, secret_purpose
from tenantry.kernel.errors import ValidationFailedException
from tenantry.kernel.security import SealError, UnknownSealingKeyError
from tests.domain.sso.issuer import Issuer
from tests.domain.sso.support import CALLBACK, Browser, connect, connect_to, problem_of, whoever
from tests.mail.support import post
from tests.mailserver import open_mail_server
from tests.world import Caller, TenantHandle, World

SECRET = "a-secret-of-the-client"
BODY = {"name": "Directory", "issuer": "https://id.example.com/", "clientId": "tenantry", "clientSecret": SECRET}
BEYOND = (403, "/problems/beyond-own-permissions")
DENIED = (403, "/problems/permission-denied")


async def read(tenant: TenantHandle, connection_id: str) -> SsoConnection:
    async with tenant.world.database.transaction(tenant.context.read_scope) as transaction:
        found = await transaction.session.scalar(
            select(SsoConnection).where(SsoConnection.id == connection_id).options(undefer_group("secret"))
        )
        assert found is not None
        return found


async def test_a_connection_is_made_changed_and_deleted_and_the_trail_says_so(acme: TenantHandle) -> None:
    made = await connect(acme, **{**BODY, "scopes": ["email"], "domains": ["B.example", "a.example", "b.example"]})
    assert (made["issuer"], made["redirectUri"]) == ("https://id.example.com/", CALLBACK)
    assert made["scopes"] == ["openid", "email"]
    assert made["domains"] == ["a.example", "b.example"]
    assert (made["defaultRoles"], made["isEnforced"], made["provisionsUsers"], made["ownersAllowed"]) == (
        ["member"],
        False,
        False,
        False,
    )
    path = f"/api/sso/connections/{made['id']}"
    assert (await acme.get(path)).json() == made
    mapping = [{"value": "it", "role": "admin"}, {"value": "it", "role": "admin"}, {"value": "all", "role": "viewer"}]
    changed = await acme.patch(
        path,
        json={"name": "Staff", "domains": ["b.example", "c.example"], "roleClaim": "groups", "roleMapping": mapping},
    )
    assert changed.status_code == 200, changed.text
    assert changed.json()["domains"] == ["b.example", "c.example"]
    assert changed.json()["roleMapping"] == [mapping[2], mapping[0]]
    assert changed.json()["defaultRoles"] == ["member"]
    same = await acme.patch(path, json={"name": "Staff", "domains": ["c.example", "b.example"]})
    assert same.json() == changed.json()
    assert [each["name"] for each in (await acme.get("/api/sso/connections")).json()["items"]] == ["Staff"]
    assert (await acme.delete(path)).status_code == 204
    assert (await acme.get(path)).status_code == 404
    trail = (await acme.get("/api/audit", params={"pageSize": 200})).json()["items"]
    assert [(each["name"], each["payload"]) for each in trail if each["name"].startswith("sso_")] == [
        ("sso_connection.deleted", {}),
        ("sso_connection.updated", {"fields": ["name", "role_claim", "domains", "role_mapping"]}),
        ("sso_connection.created", {}),
    ]


async def test_the_secret_is_sealed_and_never_shown(
    acme: TenantHandle, globex: TenantHandle, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        made = await acme.post("/api/sso/connections", json=BODY)
        path = f"/api/sso/connections/{made.json()['id']}"
        answers = [made, await acme.get(path), await acme.get("/api/sso/connections"), await acme.get("/api/audit")]
        answers.append(await acme.patch(path, json={"clientSecret": f"{SECRET}-2"}))
    assert all(SECRET not in answer.text for answer in answers)
    assert SECRET not in caplog.text
    stored = await read(acme, made.json()["id"])
    assert SECRET.encode() not in stored.client_secret
    vault = acme.world.app.state.vault
    purpose = secret_purpose(acme.tenant_id)
    assert vault.unseal(stored.client_secret, purpose=purpose, owner=stored.id).decode() == f"{SECRET}-2"
    # In another organization's row it opens nothing.
    with pytest.raises(SealError):
        vault.unseal(stored.client_secret, purpose=secret_purpose(globex.tenant_id), owner=stored.id)


async def test_secrets_are_sealed_anew_after_the_vaults_key_was_rotated(
    browser: Browser, issuer: Issuer, world: World, acme: TenantHandle
) -> None:
    made = await connect_to(issuer, acme, domains=["people.example"], provisionsUsers=True)
    issuer.claims = {"email": "ann@people.example", "email_verified": True}
    vault = world.app.state.vault
    old = (await read(acme, made["id"])).client_secret
    vault.rotate()
    assert vault.needs_resealing(old)
    await browser.sign_in(acme, await browser.by(issuer, acme))
    async with world.database.transaction(acme.context.write_scope) as transaction:
        assert await tend_sso(transaction.session, vault, acme.context) == 0
    assert not vault.needs_resealing((await read(acme, made["id"])).client_secret)
    await browser.sign_in(acme, await browser.by(issuer, acme))


async def test_a_secret_that_cannot_be_read_any_more_is_said_so(
    browser: Browser, issuer: Issuer, acme: TenantHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await connect_to(issuer, acme)
    vault = acme.world.app.state.vault
    unseal = vault.unseal

    def lost(sealed: bytes, *, purpose: str, **arguments: Any) -> bytes:
        if purpose == secret_purpose(acme.tenant_id):
            raise UnknownSealingKeyError("lost")
        return unseal(sealed, purpose=purpose, **arguments)  # type: ignore[no-any-return]

    monkeypatch.setattr(vault, "unseal", lost)
    assert await browser.by(issuer, acme) == {"error": "sso-provider"}
    found = (await acme.get(f"/api/sso/connections/{made['id']}")).json()
    assert found["lastFailure"] == "The client's secret cannot be read any more: set it anew."


async def test_log_ins_are_forgotten_after_a_day(
    browser: Browser, issuer: Issuer, world: World, acme: TenantHandle
) -> None:
    await connect_to(issuer, acme, domains=["people.example"], provisionsUsers=True)
    issuer.claims = {"email": "ann@people.example", "email_verified": True}
    for _ in range(2):
        await browser.sign_in(acme, await browser.by(issuer, acme))
    async with world.database.transaction(acme.context.write_scope) as transaction:
        session = transaction.session
        old, _ = (await session.scalars(select(SsoLogin).order_by(SsoLogin.id))).all()
        old.expires_at = old.created_at.replace(year=old.created_at.year - 1)
        await session.flush()
        assert await tend_sso(session, world.app.state.vault, acme.context) == 1
        assert len((await session.scalars(select(SsoLogin))).all()) == 1


async def _role(tenant: TenantHandle, name: str, *permissions: str) -> Caller:
    made = await tenant.post("/api/roles", json={"name": name, "permissions": list(permissions)})
    assert made.status_code == 201, made.text
    return await tenant.add_user(f"holder-of-{made.json()['slug']}", made.json()["slug"])


async def _everything_but_owner(tenant: TenantHandle) -> Caller:
    return await _role(tenant, "Deputy", *(await tenant.get("/api/users/me")).json()["permissions"])


async def test_only_who_may_do_everything_keeps_a_connection(acme: TenantHandle) -> None:
    """By one, its keeper could be any administrator with an address of its domains."""
    keeper = await _role(acme, "Keeper", "sso:read", "sso:manage")
    assert problem_of(await keeper.post("/api/sso/connections", json=BODY)) == BEYOND
    admin = await acme.add_user("an-admin", "admin")
    assert problem_of(await admin.post("/api/sso/connections", json=BODY)) == DENIED
    made = await connect(await _everything_but_owner(acme), **BODY)
    path = f"/api/sso/connections/{made['id']}"
    for answer in (
        await keeper.patch(path, json={"name": "Mine"}),
        await keeper.post(f"{path}/check"),
        await keeper.delete(path),
    ):
        assert problem_of(answer) == BEYOND
    assert (await keeper.get(path)).json() == made


async def test_what_may_make_owners_is_owners_business(acme: TenantHandle) -> None:
    admin = await _everything_but_owner(acme)
    mapping = {"roleClaim": "groups", "roleMapping": [{"value": "bosses", "role": "owner"}]}
    for fields in ({"ownersAllowed": True}, mapping, {"ownersAllowed": True, **mapping}):
        assert problem_of(await admin.post("/api/sso/connections", json={**BODY, **fields})) == DENIED
    made = await connect(acme, **BODY, ownersAllowed=True)
    path = f"/api/sso/connections/{made['id']}"
    # With another client or issuer of theirs, administrators would be owners; by a name they could hide it.
    for change in ({"name": "Mine"}, {"clientSecret": "mine"}, {"ownersAllowed": False}):
        assert problem_of(await admin.patch(path, json=change)) == DENIED
    assert problem_of(await admin.delete(path)) == DENIED
    assert (await acme.patch(path, json={"ownersAllowed": False})).status_code == 200
    assert (await admin.patch(path, json={"name": "Ours"})).status_code == 200


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"issuer": "https://10.0.0.1"}, "issuer"),
        ({"issuer": "https://169.254.169.254/latest"}, "issuer"),
        ({"issuer": "https://[::1]/"}, "issuer"),
        ({"issuer": "https://user:password@id.example.com"}, "issuer"),
        ({"issuer": "https://id.example.com/?tenant=1"}, "issuer"),
        ({"issuer": "id.example.com"}, "issuer"),
        ({"domains": ["not a domain"]}, "domains.0"),
        ({"domains": ["localhost"]}, "domains.0"),
        ({"scopes": ["two scopes"]}, "scopes.0"),
        ({"defaultRoles": ["nobody"]}, "defaultRoles"),
        ({"defaultRoles": ["owner"]}, "defaultRoles"),
        ({"roleMapping": [{"value": "x", "role": "nobody"}]}, "roleMapping"),
        ({"roleMapping": [{"value": "x", "role": "owner"}]}, "roleMapping"),
        ({"clientSecret": ""}, "clientSecret"),
        ({"clientSecret": "sécret"}, "clientSecret"),
    ],
    ids=str,
)
async def test_bad_input_is_refused_by_name_and_nothing_is_written(
    acme: TenantHandle, fields: dict[str, Any], field: str
) -> None:
    refused = await acme.post("/api/sso/connections", json={**BODY, **fields})
    assert refused.status_code == 422, refused.text
    assert [error["field"] for error in refused.json()["errors"]] == [field]
    assert (await acme.get("/api/sso/connections")).json()["total"] == 0


async def test_without_tls_a_provider_is_asked_in_networks_that_are_allowed_and_nowhere_else(
    acme: TenantHandle,
) -> None:
    """To which loopback belongs here; a name is looked at when it is resolved."""
    made = await connect(acme, **{**BODY, "issuer": "http://localhost.invalid"})
    checked = (await acme.post(f"/api/sso/connections/{made['id']}/check")).json()
    assert not checked["isGood"]
    assert checked["problem"].startswith("The discovery document could not be fetched.")
    _check_issuer("http://127.0.0.1:8080", [ip_network("127.0.0.1/32")])
    for networks in ([], [ip_network("10.0.0.0/8")]):
        with pytest.raises(ValidationFailedException):
            _check_issuer("http://127.0.0.1:8080", networks)


async def test_a_domain_is_one_connections_of_an_organization_and_any_others(
    acme: TenantHandle, globex: TenantHandle
) -> None:
    await connect(acme, **BODY, domains=["people.example"])
    again = await acme.post("/api/sso/connections", json={**BODY, "domains": ["PEOPLE.example"]})
    assert again.status_code == 422
    assert [error["field"] for error in again.json()["errors"]] == ["domains"]
    await connect(globex, **BODY, domains=["people.example"])


async def test_another_issuer_is_not_sent_the_secret_of_the_one_before_and_knows_nobody_yet(
    browser: Browser, issuer: Issuer, acme: TenantHandle
) -> None:
    made = await connect_to(issuer, acme, domains=["people.example"], provisionsUsers=True)
    path = f"/api/sso/connections/{made['id']}"
    issuer.claims = {"email": "ann@people.example", "email_verified": True}
    await browser.sign_in(acme, await browser.by(issuer, acme))
    refused = await acme.patch(path, json={"issuer": "https://elsewhere.example"})
    assert refused.status_code == 422
    assert [error["field"] for error in refused.json()["errors"]] == ["clientSecret"]
    assert (await acme.get(f"{path}/identities")).json()["total"] == 1
    moved = await acme.patch(path, json={"issuer": "https://elsewhere.example", "clientSecret": "another"})
    assert moved.status_code == 200
    assert (await acme.get(f"{path}/identities")).json()["total"] == 0


async def test_a_role_that_goes_is_mapped_no_more_and_another_of_its_name_is_not_it(
    browser: Browser, issuer: Issuer, acme: TenantHandle
) -> None:
    role = {"name": "Helper", "slug": "helper", "permissions": ["teams:read"]}
    helper = await acme.post("/api/roles", json=role)
    made = await connect_to(
        issuer,
        acme,
        domains=["people.example"],
        provisionsUsers=True,
        roleClaim="groups",
        roleMapping=[{"value": "staff", "role": "helper"}],
        defaultRoles=["viewer"],
    )
    assert (await acme.delete(f"/api/roles/{helper.json()['id']}")).status_code == 204
    again = await acme.post("/api/roles", json={**role, "permissions": ["users:write"]})
    assert again.status_code == 201
    assert (await acme.get(f"/api/sso/connections/{made['id']}")).json()["roleMapping"] == []
    issuer.claims = {"email": "ann@people.example", "email_verified": True, "groups": ["staff"]}
    me = await whoever(await browser.sign_in(acme, await browser.by(issuer, acme)))
    assert [held["slug"] for held in me["roles"]] == ["viewer"]


async def test_there_are_so_many_connections_and_no_more(acme: TenantHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenantry.domain.identity.sso.service.MOST_CONNECTIONS", 1)
    await connect(acme, **BODY)
    assert problem_of(await acme.post("/api/sso/connections", json=BODY)) == (409, "/problems/too-many-connections")


async def test_who_came_by_a_provider_that_is_gone_sets_a_password_by_mail(
    browser: Browser, issuer: Issuer, world: World, acme: TenantHandle
) -> None:
    """The account and the session outlive the connection."""
    made = await connect_to(issuer, acme, domains=["people.example"], provisionsUsers=True, isEnforced=True)
    issuer.claims = {"email": "ann@people.example", "email_verified": True}
    caller = await browser.sign_in(acme, await browser.by(issuer, acme))
    assert (await acme.delete(f"/api/sso/connections/{made['id']}")).status_code == 204
    assert (await whoever(caller))["email"] == "ann@people.example"
    async with open_mail_server() as server:
        asked = {"tenant": acme.slug, "email": "ann@people.example"}
        assert (await world.http.post("/api/auth/password-reset", json=asked)).status_code == 202
        [mail] = await post(acme, server)
    reset = {"token": mail.token, "password": "another good password"}
    assert (await world.http.post("/api/auth/password-reset/confirm", json=reset)).status_code == 204
    await world.log_in(acme.slug, "ann@people.example", "another good password")
