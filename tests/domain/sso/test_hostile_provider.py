"""Providers that lie, are away, or are not the one that was asked: nobody gets in, and the connection says why."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tenantry.domain.identity.sso.discovery import ProviderError, Providers
from tests.domain.sso.issuer import Claims, Issuer, hash_of, open_issuer
from tests.domain.sso.support import Browser, connect_to, problem_of, query_of, whoever
from tests.receiver import open_receiver
from tests.world import TenantHandle, World

FAILED = {"error": "sso-provider"}


async def connected(issuer: Issuer, tenant: TenantHandle, **fields: Any) -> str:
    """A connection by which whoever the issuer says gets in; its path."""
    issuer.claims = {"email": f"ann@{tenant.slug}.example", "email_verified": True, **issuer.claims}
    made = await connect_to(issuer, tenant, domains=[f"{tenant.slug}.example"], provisionsUsers=True, **fields)
    return f"/api/sso/connections/{made['id']}"


async def failure(tenant: TenantHandle, path: str) -> str:
    found = (await tenant.get(path)).json()["lastFailure"]
    assert isinstance(found, str)
    return found


def _segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unsigned(head: Claims, claims: Claims) -> str:
    return f"{_segment(json.dumps(head).encode())}.{_segment(json.dumps(claims).encode())}"


async def test_an_honest_one_lets_in(browser: Browser, issuer: Issuer, acme: TenantHandle) -> None:
    """Otherwise the others would be refused for nothing."""
    await connected(issuer, acme)
    caller = await browser.sign_in(acme, await browser.by(issuer, acme))
    assert (await whoever(caller))["email"] == f"ann@{acme.slug}.example"


NOW = int(time.time())
LIES: dict[str, tuple[Claims, str]] = {
    "another's nonce": ({"nonce": "another"}, "its nonce is another"),
    "no nonce": ({"nonce": None}, "its nonce is another"),
    "for another client": ({"aud": "another"}, "for somebody else (aud)"),
    "for several, by nobody": ({"aud": ["tenantry", "another"]}, "another client (azp)"),
    "for several, by another": ({"aud": ["tenantry", "another"], "azp": "another"}, "another client (azp)"),
    "by another": ({"azp": "another"}, "another client (azp)"),
    "of another issuer": ({"iss": "https://elsewhere.example"}, "of another issuer"),
    "of a longer issuer": ({"iss": "http://127.0.0.1:1/evil"}, "of another issuer"),
    "expired": ({"iat": NOW - 900, "exp": NOW - 600}, "it has expired"),
    "of tomorrow": ({"iat": NOW + 86_400, "exp": NOW + 90_000}, "from the future"),
    "for ever": ({"exp": None}, "it lacks one of"),
    "of nobody": ({"sub": None}, "it lacks one of"),
    "of an empty nobody": ({"sub": ""}, "subject is not 1 to 255"),
    "of somebody with a long name": ({"sub": "x" * 256}, "subject is not 1 to 255"),
    "beside another's access token": ({"at_hash": hash_of("another access token")}, "(at_hash)"),
    "with a hash that is none": ({"at_hash": 7}, "(at_hash)"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_an_id_token_that_is_not_for_this_log_in_lets_nobody_in(
    browser: Browser, issuer: Issuer, acme: TenantHandle, lie: str
) -> None:
    path = await connected(issuer, acme)
    changed, reason = LIES[lie]
    issuer.tamper = lambda claims: {name: value for name, value in {**claims, **changed}.items() if value is not None}
    assert await browser.by(issuer, acme) == FAILED
    assert reason in await failure(acme, path)
    assert (await acme.get("/api/users")).json()["total"] == 1


def _forgers(issuer: Issuer) -> dict[str, Callable[[Claims], str]]:
    head = {"alg": "ES256", "kid": issuer.kid, "typ": "JWT"}
    stranger = ec.generate_private_key(ec.SECP256R1())
    pem = issuer.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    def hmac_with(secret: bytes) -> Callable[[Claims], str]:
        def sign(claims: Claims) -> str:
            text = _unsigned({**head, "alg": "HS256"}, claims)
            return f"{text}.{_segment(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"

        return sign

    def cut(claims: Claims) -> str:
        return jwt.encode(claims, issuer.key, algorithm="ES256", headers=head).rpartition(".")[0] + "."

    def longer(claims: Claims) -> str:
        head_, _, signature = jwt.encode(claims, issuer.key, algorithm="ES256", headers=head).split(".")
        return f"{head_}.{_segment(json.dumps({**claims, 'sub': 'somebody else'}).encode())}.{signature}"

    inline = {"jwk": jwt.algorithms.ECAlgorithm.to_jwk(stranger.public_key(), as_dict=True)}
    return {
        "alg none": lambda claims: _unsigned({**head, "alg": "none"}, claims) + ".",
        "alg None": lambda claims: _unsigned({**head, "alg": "None"}, claims) + ".",
        "HS256 by the client's secret": hmac_with(issuer.client_secret.encode()),
        "HS256 by the public key": hmac_with(pem),
        "a stranger's key": lambda claims: jwt.encode(claims, stranger, algorithm="ES256", headers=head),
        "a stranger's key in the head": lambda claims: jwt.encode(
            claims, stranger, algorithm="ES256", headers={**head, **inline}
        ),
        "no signature": cut,
        "other claims": longer,
        "another curve": lambda claims: jwt.encode(
            claims, ec.generate_private_key(ec.SECP384R1()), algorithm="ES384", headers={"kid": issuer.kid}
        ),
        "garbage": lambda _: "a.b.c",
        "nothing": lambda _: "",
    }


@pytest.mark.parametrize("forgery", _forgers(Issuer("http://nowhere.example")))
async def test_an_id_token_that_the_provider_has_not_signed_lets_nobody_in(
    browser: Browser, issuer: Issuer, acme: TenantHandle, forgery: str
) -> None:
    path = await connected(issuer, acme)
    issuer.sign = _forgers(issuer)[forgery]
    assert await browser.by(issuer, acme) == FAILED
    assert "ID token" in await failure(acme, path)


async def test_a_key_that_is_too_short_is_no_key(browser: Browser, issuer: Issuer, acme: TenantHandle) -> None:
    path = await connected(issuer, acme)
    short = rsa.generate_private_key(65537, 1024)
    listed: Claims = jwt.algorithms.RSAAlgorithm.to_jwk(short.public_key(), as_dict=True)
    issuer.metadata = {"id_token_signing_alg_values_supported": ["RS256"]}
    issuer._jwk = lambda: listed | {"kid": "short"}  # type: ignore[method-assign]
    with pytest.warns(jwt.warnings.InsecureKeyLengthWarning):
        made = jwt.encode({}, short, algorithm="RS256", headers={"kid": "short"})
    assert made

    def sign(claims: Claims) -> str:
        with pytest.warns(jwt.warnings.InsecureKeyLengthWarning):
            return jwt.encode(claims, short, algorithm="RS256", headers={"kid": "short"})

    issuer.sign = sign
    assert await browser.by(issuer, acme) == FAILED
    assert "not as it should be" in await failure(acme, path)


DOCUMENTS: dict[str, tuple[Claims, str]] = {
    "of another issuer": ({"issuer": "https://elsewhere.example"}, "names another issuer"),
    "of an issuer with a slash": ({"issuer": "SLASH"}, "names another issuer"),
    "with a token endpoint in our network": ({"token_endpoint": "https://10.0.0.1/token"}, "cannot be used"),
    "with keys on the metadata service": ({"jwks_uri": "http://169.254.169.254/keys"}, "cannot be used"),
    "without keys": ({"jwks_uri": 7}, "not as it should be"),
    "that signs by secrets": ({"id_token_signing_alg_values_supported": ["HS256", "none"]}, "by no algorithm"),
    "without secrets": ({"token_endpoint_auth_methods_supported": ["private_key_jwt"]}, "takes no client secret"),
    "without codes": ({"response_types_supported": ["id_token"]}, "authorization code flow"),
    "without S256": ({"code_challenge_methods_supported": ["plain"]}, "S256"),
}


@pytest.mark.parametrize("document", DOCUMENTS)
async def test_a_provider_that_says_of_itself_what_cannot_be_is_sent_nobody(
    browser: Browser, issuer: Issuer, acme: TenantHandle, document: str
) -> None:
    path = await connected(issuer, acme)
    changed, reason = DOCUMENTS[document]
    issuer.metadata = {name: f"{issuer.issuer}/" if value == "SLASH" else value for name, value in changed.items()}
    located = await browser.locate(acme)
    refused = await browser.http.get(located.json()["url"])
    assert problem_of(refused) == (503, "/problems/unavailable")
    assert reason in await failure(acme, path)
    checked = await acme.post(f"{path}/check")
    assert (checked.status_code, checked.json()["isGood"]) == (200, False)
    assert reason in checked.json()["problem"]
    # Set right, it is asked again at once.
    issuer.metadata = {}
    assert (await acme.post(f"{path}/check")).json()["isGood"]
    await browser.sign_in(acme, await browser.by(issuer, acme))


async def test_what_is_not_the_issuers_answer_is_not_believed(
    browser: Browser, issuer: Issuer, acme: TenantHandle
) -> None:
    """RFC 9207: another provider has sent the browser here, with a code that is not its own to have."""
    path = await connected(issuer, acme)
    for url in (
        issuer.authorize(await browser.set_off(acme), iss="https://elsewhere.example"),
        issuer.authorize(await browser.set_off(acme), iss="", error="access_denied"),
        issuer.authorize(await browser.set_off(acme)).replace("iss=", "issuer="),
    ):
        assert await browser.come_back(acme, url) == FAILED
        assert "(iss)" in await failure(acme, path)
    # Nor was the code sent anywhere.
    assert "/token" not in issuer.asked


async def test_a_code_of_one_provider_is_worth_nothing_at_another(
    browser: Browser, issuer: Issuer, acme: TenantHandle
) -> None:
    """The mix-up of RFC 9700 §4.4 by providers that do not say who they are."""
    async with open_issuer() as other:
        for each in (issuer, other):
            each.names_itself = False
        await connected(issuer, acme)
        theirs = await connect_to(other, acme, name="Other")
        honest = issuer.authorize(await browser.set_off(acme, email=f"ann@{acme.slug}.example"))
        state = query_of(await browser.set_off(acme, connectionId=theirs["id"]))["state"]
        mixed = honest.replace(query_of(honest)["state"], state)
        assert await browser.come_back(acme, mixed) == FAILED
        # And the code that was stolen on the way is worth nothing with the thief's own verifier.
        assert await browser.come_back(acme, honest.replace(query_of(honest)["code"], "another")) == FAILED
        assert issuer.forms[-1]["code_verifier"] != other.forms[-1]["code_verifier"]


async def test_a_stolen_code_is_worth_nothing_in_the_thiefs_browser(
    world: World, browser: Browser, issuer: Issuer, acme: TenantHandle
) -> None:
    """Put into the thief's own log-in: the verifier is another's (RFC 9700 §2.1.1)."""
    path = await connected(issuer, acme)
    stolen = query_of(issuer.authorize(await browser.set_off(acme)))["code"]
    thief = Browser(world)
    own = issuer.authorize(await thief.set_off(acme))
    assert await thief.come_back(acme, own.replace(query_of(own)["code"], stolen)) == FAILED
    assert await failure(acme, path) == "The token endpoint has refused: invalid_grant."
    await thief.http.aclose()


async def test_keys_that_were_rotated_are_fetched_but_not_all_the_time(
    browser: Browser, issuer: Issuer, acme: TenantHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await connected(issuer, acme)
    providers: Providers = acme.world.app.state.sso_providers
    now = time.monotonic()
    monkeypatch.setattr(providers, "_clock", lambda: now)
    await browser.sign_in(acme, await browser.by(issuer, acme))
    await browser.sign_in(acme, await browser.by(issuer, acme))
    assert issuer.asked.count("/jwks") == issuer.asked.count("/.well-known/openid-configuration") == 1
    issuer.rotate()
    for _ in range(3):
        assert await browser.by(issuer, acme) == FAILED
    assert "a key that the provider does not list" in await failure(acme, path)
    assert issuer.asked.count("/jwks") == 1
    now += 31
    await browser.sign_in(acme, await browser.by(issuer, acme))
    assert issuer.asked.count("/jwks") == 2
    now += 3601
    await browser.sign_in(acme, await browser.by(issuer, acme))
    assert issuer.asked.count("/jwks") == issuer.asked.count("/.well-known/openid-configuration") + 1 == 3


async def test_a_provider_that_failed_is_not_asked_again_for_a_moment(issuer: Issuer, world: World) -> None:
    now = time.monotonic()
    providers = Providers(world.settings, clock=lambda: now)
    issuer.metadata = {"jwks_uri": 7}
    for _ in range(3):
        with pytest.raises(ProviderError):
            await providers.metadata(UUID(int=1), issuer.issuer)
    assert len(issuer.asked) == 1
    # To another organization that is no matter.
    with pytest.raises(ProviderError):
        await providers.metadata(UUID(int=2), issuer.issuer)
    assert len(issuer.asked) == 2
    now += 6
    issuer.metadata = {}
    assert (await providers.metadata(UUID(int=1), issuer.issuer)).issuer == issuer.issuer


async def test_what_a_provider_says_is_not_read_to_the_end_where_it_has_none(world: World) -> None:
    async with open_receiver() as receiver:
        receiver.answer = lambda _: (200, {}, b" " * 1_000_000)
        with pytest.raises(ProviderError, match="too long"):
            await Providers(world.settings).metadata(UUID(int=1), receiver.url)
        receiver.answer = lambda _: (302, {"Location": "http://127.0.0.1:1/"}, b"")
        with pytest.raises(ProviderError, match="answered with 302"):
            await Providers(world.settings).metadata(UUID(int=1), receiver.url)


async def test_userinfo_is_asked_for_what_the_token_lacks_and_is_about_the_same_person(
    browser: Browser, issuer: Issuer, acme: TenantHandle
) -> None:
    path = await connected(issuer, acme)
    said = {"email": f"ann@{acme.slug}.example", "email_verified": True}
    issuer.tamper = lambda claims: {name: value for name, value in claims.items() if not name.startswith("email")}
    issuer.userinfo = {"sub": "somebody else", **said}
    assert await browser.by(issuer, acme) == FAILED
    assert "about somebody else" in await failure(acme, path)
    issuer.userinfo = {"sub": issuer.subject, **said}
    await browser.sign_in(acme, await browser.by(issuer, acme))
    # What is signed counts, where both say something.
    issuer.tamper = lambda claims: {**{k: v for k, v in claims.items() if k != "email"}, "email_verified": False}
    issuer.subject = "subject-2"
    issuer.userinfo = {"sub": issuer.subject, "email": f"bob@{acme.slug}.example", "email_verified": True}
    assert await browser.by(issuer, acme) == {"error": "sso-refused", "reason": "email-unverified"}


async def test_that_another_address_is_verified_proves_nothing_of_this_one(
    browser: Browser, issuer: Issuer, acme: TenantHandle
) -> None:
    await connected(issuer, acme)
    issuer.tamper = lambda claims: {name: value for name, value in claims.items() if name != "email_verified"}
    issuer.userinfo = {"sub": issuer.subject, "email": "ann@elsewhere.example", "email_verified": True}
    assert await browser.by(issuer, acme) == {"error": "sso-refused", "reason": "email-unverified"}
    issuer.userinfo["email"] = f"ann@{acme.slug}.example"
    await browser.sign_in(acme, await browser.by(issuer, acme))


async def test_userinfo_is_not_asked_where_the_token_says_it_all(
    browser: Browser, issuer: Issuer, acme: TenantHandle
) -> None:
    await connected(issuer, acme)
    await browser.sign_in(acme, await browser.by(issuer, acme))
    assert "/userinfo" not in issuer.asked


@pytest.mark.parametrize("answers", [{"id_token": None}, {"id_token": 7}, {"access_token": 7}], ids=str)
async def test_an_answer_without_an_id_token_lets_nobody_in(
    browser: Browser, issuer: Issuer, acme: TenantHandle, answers: Claims
) -> None:
    path = await connected(issuer, acme)
    issuer.answers = answers
    assert await browser.by(issuer, acme) == FAILED
    assert await failure(acme, path) == "The token endpoint's answer has no ID token."


async def test_a_claim_within_objects_gives_roles_and_garbage_in_it_gives_none(
    browser: Browser, issuer: Issuer, acme: TenantHandle
) -> None:
    await connected(
        issuer,
        acme,
        roleClaim="realm_access.roles",
        roleMapping=[{"value": "staff", "role": "viewer"}, {"value": "True", "role": "admin"}],
        defaultRoles=[],
    )
    for found in ({"roles": [True, None, {"staff": 1}, ["staff"]]}, {"roles": {"staff": True}}, ["staff"], "staff", 7):
        issuer.claims["realm_access"] = found
        assert await browser.by(issuer, acme) == {"error": "sso-refused", "reason": "no-role"}
    issuer.claims["realm_access"] = {"roles": ["staff"]}
    me = await whoever(await browser.sign_in(acme, await browser.by(issuer, acme)))
    assert [role["slug"] for role in me["roles"]] == ["viewer"]
