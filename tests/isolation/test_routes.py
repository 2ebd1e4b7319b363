"""Every route, whoever added it: another tenant's ids, bad tokens, wrong hosts, too little permission.

All of it is generated from the features' manifests. A new resource is covered by being listed there; what it has to
say for itself is which model each id in its paths and bodies names (`Feature.identifiers`).
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from sqlalchemy import func, select, update

from tenantry.domain.identity.api_keys.models import ApiKey
from tenantry.domain.identity.invitations.jobs import forget_old_invitations
from tenantry.domain.identity.users.models import User
from tenantry.features import DOMAIN_FEATURES, PLATFORM_FEATURES, TENANT_METADATA
from tenantry.kernel.schema import camel
from tenantry.kernel.security import AUDIENCE_PLATFORM, AUDIENCE_TENANT, Keyring, Tokens
from tenantry.kernel.storage import Storage
from tenantry.platform.access import OPERATOR_PERMISSIONS
from tenantry.platform.provisioning.models import Operation
from tenantry.tenancy.context import ScopeTimes, control_scope
from tenantry.tenancy.request import HostNames
from tests.domain.machines import change_row, make_account, make_key
from tests.isolation.factors import prepare_factors
from tests.isolation.planting import plant
from tests.isolation.routes import (
    ENDPOINTS,
    IDENTIFIERS,
    Endpoint,
    begin_endless,
    body_of,
    digests,
    identifiers_in,
    plant_link,
    snapshot,
)
from tests.world import PASSWORD, Caller, TenantHandle, World

PUBLIC = {
    "POST /api/auth/login": "trades a password for a token",
    "POST /api/auth/refresh": "trades a refresh token for a token; the access token may have expired",
    "POST /api/auth/invitations/accept": "trades an invitation for a password; whoever holds it has no token yet",
    "POST /api/auth/team-invitations/accept": "trades an invitation for an account; whoever holds it has none yet",
    "POST /api/auth/team-invitations/decline": "declines one, likewise",
    "POST /api/auth/password-reset": "has a link mailed to somebody who cannot log in; says nothing of who there is",
    "POST /api/auth/password-reset/confirm": "trades a mailed token for a password",
    "POST /api/auth/sso/start": "says where to sign in, to somebody who has no token yet",
    "GET /api/auth/sso/start": "sends a browser to the organization's provider",
    "GET /api/auth/sso/callback": "where it comes back; state and cookie say that it left from here",
    "POST /api/auth/sso/token": "trades a code and its page's verifier for tokens",
    "POST /api/auth/verify-email/request": "has a link mailed to somebody who is not let in before; likewise",
    "POST /api/auth/verify-email": "trades a mailed token for a confirmed address",
    "POST /api/auth/email-change/confirm": "trades a mailed token for an address's consent; or another mailbox's",
    "POST /api/auth/email-change/cancel": "likewise, for its refusal",
    "POST /api/auth/sign-up": "has a link mailed to somebody who has no account; says nothing of what there is",
    "POST /api/auth/sign-up/accept": "trades a mailed token for an account",
    "POST /api/auth/login/second-factor": "trades the challenge of a right password, and a factor, for a token",
    "POST /api/auth/passkeys/options": "something to sign for whoever has a passkey; says nothing of who there is",
    "POST /api/auth/passkeys/login": "trades what a passkey has signed for a token",
    "POST /api/auth/organizations": "mails somebody where they have accounts; says nothing of who there is",
    "POST /api/signup": "has a link mailed to somebody who has no organization yet; makes nothing",
    "POST /api/signup/confirm": "trades a mailed token for an organization",
    "POST /platform/auth/login": "trades an operator's password for a token",
    "GET /health/live": "asked by the orchestrator",
    "GET /health/ready": "asked by the orchestrator",
    "GET /metrics": "asked by Prometheus; names no tenant",
    "GET /.well-known/jwks.json": "public keys, for whoever verifies our tokens",
    "GET /problems": "the documents of the errors",
    "GET /problems/{slug}": "one of them",
    "OPTIONS /problems": "the documents of the errors",
    "OPTIONS /problems/{slug}": "one of them",
    "GET /schema": "the page that shows the API",
    "GET /schema/assets/{name}": "its scripts and styles",
    "GET /schema/openapi.json": "the API's description, the same for everybody",
    "GET /schema/openapi.yaml": "the same",
    "GET /schema/{path}": "the page that shows the API",
    "OPTIONS /schema": "the page that shows the API",
    "OPTIONS /schema/assets/{name}": "its scripts and styles",
    "OPTIONS /schema/openapi.json": "the API's description",
    "OPTIONS /schema/openapi.yaml": "the same",
    "OPTIONS /schema/{path}": "the page that shows the API",
}
"""Routes that ask for no token, and why. To add one is a decision."""

NO_PLANE = {
    "OPTIONS /.well-known/jwks.json",
    "OPTIONS /health/live",
    "OPTIONS /health/ready",
    "OPTIONS /metrics",
}
"""Litestar's own answers about routes that are on neither plane: their methods, and nothing else."""

PLATFORM_PARAMETERS = {
    "access_id": "an operator's being in a tenant, of whichever",
    "job_id": "a job's, of whatever tenant",
    "name": "a schedule's, of the same names for all tenants",
    "slug": "a tenant's, for operators, who see all tenants",
    "operation_id": "an operation's, likewise",
    "operator_id": "an operator's, whom no tenant knows",
    "rollout_id": "a rollout's, which is about all tenants",
    "tenant_id": "a purged tenant's, of which nothing but its certificate is left",
}
"""Parameters of the control plane, which has no tenant to keep apart from another."""

API = [endpoint for endpoint in ENDPOINTS if endpoint.path.startswith("/api/")]
PLATFORM = [endpoint for endpoint in ENDPOINTS if endpoint.path.startswith("/platform/")]
GUARDED = [endpoint for endpoint in (*API, *PLATFORM) if not endpoint.is_public]
HANDLED = [endpoint for endpoint in GUARDED if endpoint.method != "OPTIONS"]
"""Without Litestar's own answers to OPTIONS, which ask for a token but for no permission."""
WITH_IDS = [
    endpoint
    for endpoint in HANDLED
    if endpoint.path.startswith("/api/") and (endpoint.parameters or identifiers_in(endpoint.body))
]
READS = [endpoint for endpoint in HANDLED if endpoint.path.startswith("/api/") and endpoint.method == "GET"]
PERSONAL = {
    "api_key_id": "user_id",
    "notification_id": "user_id",
    "session_id": "user_id",
    "passkey_id": "user_id",
    "team_invitation_id": "user_id",
}
"""Ids of what is one user's alone, and the column that says whose: to others they are ids of nothing."""
VOUCHED_FOR = {"team_invitation_id": "invited_by_id"}
"""Ids of what is good only while somebody stands behind it, and the column that says who: the owner."""
OTHERS_IDS = {"client_id": "by which a provider knows us", "external_id": "by which a directory knows somebody"}
"""Ids in bodies that are others' names, and of no row here."""
PARTS = {
    "delivery_id": ("webhook_id", "endpoint_id"),
    "identity_id": ("connection_id", "connection_id"),
    "session_id": ("user_id", "user_id"),
}
"""Ids of what is a part of something: the id of that, and the column that says of which it is."""
TIED = {"POST /api/teams/{team_id}/transfer-ownership": "to a member of that team"}
"""Routes whose bodies name what belongs to what their paths name, and how."""
ENDS_CALLER = {"POST /api/users/me/erase": "whoever calls it is gone"}
"""Routes that a caller whom the tests still need does not call; its ids are of colleagues, and nobody's alone."""
VIEWERS_MAY_TRY = {
    "DELETE /api/teams/{team_id}/members/{user_id}": "everybody may leave a team; others stay out of a viewer's reach",
}
"""Routes that write and that a permission of viewers opens. What they may not write there, the service refuses."""


@dataclass(frozen=True)
class Pair:
    """Two tenants that must not know of one another."""

    acme: TenantHandle
    globex: TenantHandle
    world: World


@pytest.fixture(scope="module")
async def pair(world: World) -> Pair:
    return Pair(await world.create_tenant("acme"), await world.create_tenant("globex"), world)


async def _call(
    caller: Caller, endpoint: Endpoint, ids: Mapping[str, object] | None = None, **arguments: Any
) -> httpx.Response:
    if endpoint.body is not None:
        arguments.setdefault("json", body_of(endpoint.body, ids))
    if endpoint.is_endless and not arguments.get("headers"):
        return await begin_endless(caller, endpoint)
    return await caller.request(endpoint.method, endpoint.url(ids), **arguments)


async def _plant(
    tenant: TenantHandle, names: tuple[str, ...], *, linked: tuple[str, ...] = (), caller: Caller | None = None
) -> dict[str, UUID]:
    """Rows of this tenant that these identifiers name; those in `linked` belong together.

    What is one user's alone is the caller's, by default the owner's; what is a part of another one's, a part of that.
    """
    ids: dict[str, UUID] = {}
    async with tenant.world.database.transaction(tenant.context.write_scope) as transaction:
        for name in names:
            if name in IDENTIFIERS:
                given: dict[str, object] = {PERSONAL[name]: (caller or tenant).id} if name in PERSONAL else {}
                if name in VOUCHED_FOR:
                    given[VOUCHED_FOR[name]] = tenant.id
                if name in PARTS and PARTS[name][0] in ids:
                    whole, column = PARTS[name]
                    given[column] = ids[whole]
                ids[name] = (await plant(transaction.session, IDENTIFIERS[name], **given))["id"]
        if "service_account_id" in ids:
            # A key is a user's or a service account's: here is the other kind.
            key = await plant(transaction.session, ApiKey, service_account_id=ids["service_account_id"])
            if "service_account_id" in linked:
                ids["api_key_id"] = key["id"]
        if len(linked) > 1:
            await plant_link(transaction.session, {name: ids[name] for name in linked})
    return ids | {name: await CONTROL_PLANES[name](tenant) for name in names if name in CONTROL_PLANES}


async def _plant_export(tenant: TenantHandle) -> UUID:
    """An export that is done, asked for by the organization's own people; its file says whose it is."""
    export_id, content = uuid4(), f"everything of {tenant.slug}".encode()
    key = f"tenants/{tenant.tenant_id}/exports/{export_id}.zip"
    expires_at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    async with tenant.world.database.transaction(control_scope(ScopeTimes(), read_only=False)) as transaction:
        transaction.session.add(
            Operation(
                id=export_id,
                kind="export",
                status="done",
                tenant_id=tenant.tenant_id,
                result={"key": key, "bytes": len(content), "expiresAt": expires_at.isoformat()},
                requested_by=f"user:{tenant.tenant_id}/{tenant.id}",
            )
        )
    await Storage.open(tenant.world.settings).put_bytes(key, content)
    return export_id


async def _plant_job(tenant: TenantHandle) -> UUID:
    """A job that waits for its time."""
    async with tenant.world.database.transaction(tenant.context.write_scope) as transaction:
        return await forget_old_invitations.schedule(transaction.session, 3600)


CONTROL_PLANES: Mapping[str, Callable[[TenantHandle], Awaitable[UUID]]] = {
    "export_id": _plant_export,
    "job_id": _plant_job,
}
"""Ids in tenants' paths that name rows of the control plane, which no model of a tenant is for."""


_OWN_EXPORTS = func.platform.own_exports().table_valued("id", "status", "error", "result")


async def _snapshot(tenant: TenantHandle) -> dict[str, Any]:
    """What the tenant has, as a digest of each table, and what the control plane keeps for its own people."""
    async with tenant.world.database.transaction(tenant.context.read_scope) as transaction:
        exports = await transaction.session.execute(select(_OWN_EXPORTS))
        rows = [dict(row) for row in exports.mappings()]
        return await digests(transaction.connection) | {"own exports": rows}


async def _ids_of(tenant: TenantHandle) -> set[str]:
    """Every id that the tenant's rows hold."""
    async with tenant.world.database.transaction(tenant.context.read_scope) as transaction:
        found = await snapshot(transaction.session)
    return {str(value) for rows in found.values() for row in rows for value in row.values() if isinstance(value, UUID)}


# What a feature has to say for itself.


@pytest.mark.parametrize("endpoint", [each for each in API if each.parameters], ids=str)
def test_every_id_in_a_path_names_a_model(endpoint: Endpoint) -> None:
    unknown = set(endpoint.parameters) - IDENTIFIERS.keys() - CONTROL_PLANES.keys()
    assert not unknown, f"add {unknown} to the `identifiers` of the feature's manifest"


@pytest.mark.parametrize("endpoint", [each for each in API if each.body is not None], ids=str)
def test_every_id_in_a_body_names_a_model(endpoint: Endpoint) -> None:
    assert endpoint.body is not None
    names = {field.name for field in msgspec.structs.fields(endpoint.body) if field.name.endswith(("_id", "_ids"))}
    unknown = names - IDENTIFIERS.keys() - OTHERS_IDS.keys()
    assert not unknown, f"add {unknown} to the `identifiers` of the feature's manifest"


def test_the_control_planes_parameters_are_known() -> None:
    assert {name for endpoint in PLATFORM for name in endpoint.parameters} == PLATFORM_PARAMETERS.keys()


def test_every_table_of_a_tenant_is_some_features() -> None:
    listed = {model.__table__ for feature in DOMAIN_FEATURES for model in feature.models}
    # A table without a model of its own ties two of them together.
    rest = [table for table in TENANT_METADATA.tables.values() if table not in listed]
    assert [table.name for table in rest if len(table.foreign_keys) != len(table.columns)] == []


def test_every_route_is_some_features() -> None:
    domain = [controller for feature in DOMAIN_FEATURES for controller in feature.controllers]
    platform = [controller for feature in PLATFORM_FEATURES for controller in feature.controllers]
    strangers = [controller for feature in PLATFORM_FEATURES for controller in feature.public_controllers]
    for endpoints, controllers in ((API, [*domain, *strangers]), (PLATFORM, platform)):
        listed = {controller.__qualname__ for controller in controllers}
        found = {each.handler.fn.__qualname__.rpartition(".")[0] for each in endpoints if each.method != "OPTIONS"}
        assert found == listed


def test_public_routes_are_public_for_a_reason() -> None:
    assert {str(endpoint) for endpoint in ENDPOINTS if endpoint.is_public} == PUBLIC.keys()


async def test_the_document_asks_for_a_token_where_the_route_does_and_nowhere_else(world: World) -> None:
    paths = (await world.http.get("/schema/openapi.json")).json()["paths"]
    described = {
        f"{method.upper()} {path}": operation["security"]
        for path, item in paths.items()
        for method, operation in item.items()
    }
    assert {route for route, security in described.items() if security == []} <= PUBLIC.keys()
    assert {str(each) for each in HANDLED} <= {route for route, security in described.items() if security}
    assert {"POST /api/auth/login", "POST /platform/auth/login", "POST /api/signup"} <= described.keys()
    assert described["POST /api/auth/login"] == described["POST /platform/auth/login"] == []


def test_every_route_is_on_a_plane_or_public() -> None:
    on_none = {str(each) for each in ENDPOINTS if each not in API and each not in PLATFORM and not each.is_public}
    assert on_none == NO_PLANE


@pytest.mark.parametrize("endpoint", HANDLED, ids=str)
def test_every_route_asks_for_a_permission_or_is_any_users(endpoint: Endpoint) -> None:
    assert bool(endpoint.permissions) != endpoint.any_user
    known = (
        {permission.name for feature in DOMAIN_FEATURES for permission in feature.permissions}
        if endpoint in API
        else OPERATOR_PERMISSIONS["owner"]
    )
    assert set(endpoint.permissions) <= known


# Another tenant's ids.


@pytest.mark.parametrize("endpoint", WITH_IDS, ids=str)
async def test_another_tenants_ids_are_those_of_nothing(pair: Pair, endpoint: Endpoint) -> None:
    """Alone or mixed with one's own, they are answered as ids that do not exist at all, and nothing happens to them."""
    names = (*endpoint.parameters, *identifiers_in(endpoint.body))
    linked = names if str(endpoint) in TIED else endpoint.parameters
    own = await _plant(pair.acme, names, linked=linked)
    foreign = await _plant(pair.globex, names, linked=linked)
    before = await _snapshot(pair.globex)
    body = body_of(endpoint.body, own) or {}
    for count in range(1, len(names) + 1):
        for chosen in itertools.combinations(names, count):
            answers = []
            for others in (foreign, {name: uuid4() for name in names}):
                ids = own | {name: others[name] for name in chosen}
                sent = body | {camel(name): str(ids[name]) for name in identifiers_in(endpoint.body)}
                answer = await pair.acme.request(
                    endpoint.method, endpoint.url(ids), **({"json": sent} if endpoint.body else {})
                )
                assert answer.status_code in {404, 422}, (chosen, answer.text)
                answers.append(_comparable(answer, ids))
            assert answers[0] == answers[1], chosen
    assert await _snapshot(pair.globex) == before
    # With ids of its own the very same call is a good one.
    caller: Caller = pair.acme
    if str(endpoint) in ENDS_CALLER:
        caller = await pair.acme.add_user(f"leaving-{uuid4().hex[:8]}", "owner")
    answer = await caller.request(endpoint.method, endpoint.url(own), **({"json": body} if endpoint.body else {}))
    assert answer.is_success, answer.text


def _comparable(answer: httpx.Response, ids: Mapping[str, object]) -> Any:
    text = answer.text
    for name, value in ids.items():
        text = text.replace(str(value), f"<{name}>")
    problem = json.loads(text)
    # Errors of SCIM have none.
    problem.pop("requestId", None)
    problem.pop("traceId", None)
    return answer.status_code, sorted(answer.headers), problem


@pytest.mark.parametrize("endpoint", READS, ids=str)
async def test_what_is_read_holds_nothing_of_another_tenant(pair: Pair, endpoint: Endpoint) -> None:
    every = (*IDENTIFIERS, *CONTROL_PLANES)
    own = await _plant(pair.acme, every, linked=("team_id", "user_id"))
    await _plant(pair.globex, every, linked=("team_id", "user_id"))
    foreign = await _ids_of(pair.globex)
    query = {"pageSize": 200} if "Page" in str(endpoint.handler.parsed_return_field.annotation) else {}
    answer = await _call(pair.acme, endpoint, own, params=query)
    assert answer.status_code == 200, answer.text
    for word in (*foreign, *(word.replace("-", "") for word in foreign), pair.globex.slug, str(pair.globex.tenant_id)):
        assert word not in answer.text
    if query:
        assert answer.json()["total"] > 0
        # Of people there may be more than a page, since every module's cases have planted some.
        assert len(answer.json()["items"]) == min(answer.json()["total"], query["pageSize"])


# Tokens that are none, of those who may not.


def _segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _payload(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return decoded


def _header(token: str) -> dict[str, Any]:
    part = token.split(".")[0]
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return decoded


def _unsigned(header: dict[str, Any], payload: dict[str, Any]) -> str:
    return f"{_segment(json.dumps(header).encode())}.{_segment(json.dumps(payload).encode())}"


def _forgeries(world: World, good: str, folder: Path) -> dict[str, str]:
    """Tokens that say what a good one does, and were not signed by us."""
    payload, header = _payload(good), _header(good)
    key = world.app.state.keyring.signing_key().private.public_key()
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    stranger = Keyring.open(folder / "stranger.json", retain=86_400).signing_key()
    made = {
        "garbage": "garbage",
        "three segments of garbage": "a.b.c",
        "too long": "a" * 5000,
        "alg none": f"{_unsigned({**header, 'alg': 'none'}, payload)}.",
        "alg none with a signature": f"{_unsigned({**header, 'alg': 'none'}, payload)}.{good.split('.')[2]}",
        "alg nOnE": f"{_unsigned({**header, 'alg': 'nOnE'}, payload)}.{good.split('.')[2]}",
        "no signature": good.rpartition(".")[0] + ".",
        "another's signature": good.rpartition(".")[0] + "." + _segment(bytes(64)),
        "a longer life": f"{_unsigned(header, {**payload, 'exp': payload['exp'] + 3600})}.{good.split('.')[2]}",
    }
    for name, secret in {"raw": raw, "PEM": pem, "base64url": _segment(raw).encode()}.items():
        text = _unsigned({**header, "alg": "HS256"}, payload)
        signature = _segment(hmac.new(secret, text.encode(), hashlib.sha256).digest())
        made[f"HS256 with the public key ({name})"] = f"{text}.{signature}"
    for name, kid in {"its own": stranger.kid, "our key's": header["kid"]}.items():
        text = _unsigned({**header, "kid": kid}, payload)
        made[f"a stranger's key under {name} name"] = f"{text}.{_segment(stranger.private.sign(text.encode()))}"
    inline = _unsigned(
        {**header, "kid": stranger.kid, "jwk": {"kty": "OKP", "crv": "Ed25519", "x": _segment(raw)}}, payload
    )
    made["a key of its own in the header"] = f"{inline}.{_segment(stranger.private.sign(inline.encode()))}"
    return made


@pytest.fixture(scope="module")
async def bad_tokens(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """By plane and by what is wrong with them."""
    world, acme, globex = pair.world, pair.acme, pair.globex
    folder = tmp_path_factory.mktemp("keys")
    keyring, issuer = world.app.state.keyring, world.settings.token_issuer
    ours, earlier = Tokens(keyring, issuer), Tokens(keyring, issuer, clock=lambda: time.time() - 3600)
    foreign = Tokens(keyring, "another issuer")
    claims = _payload(acme.access_token)
    sub, sid, tid = UUID(claims["sub"]), UUID(claims["sid"]), UUID(claims["tid"])

    def tenant(by: Tokens = ours, **changed: UUID) -> str:
        claims: dict[str, Any] = {"sub": sub, "sid": sid, "tid": tid, **changed}
        return by.issue(audience=AUDIENCE_TENANT, ttl=600, **claims)[0]

    operator = UUID(_payload(world.operator.access_token)["sub"])
    out, gone = await acme.add_user("signed-out", "owner"), await acme.add_user("deactivated", "owner")
    assert (await out.post("/api/auth/logout")).status_code == 204
    assert (await acme.patch(f"/api/users/{gone.id}", json={"isActive": False})).status_code == 200
    # Deactivating ends the sessions as well; here an account alone is switched off.
    off = await acme.add_user("switched-off", "owner")
    async with world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.session.execute(update(User).where(User.id == off.id).values(is_active=False))
    holder = await acme.add_user("key-holder", "owner")
    revoked, expired = await make_key(holder), await make_key(holder)
    assert (await holder.delete(f"/api/api-keys/{revoked.key_id}")).status_code == 204
    await change_row(acme, expired.key_id, expires_at=datetime.datetime.now(datetime.UTC))
    switched_off = await make_account(acme, "Switched off")
    idle = await make_key(acme, path=f"{switched_off}/api-keys")
    assert (await acme.patch(switched_off, json={"isActive": False})).status_code == 200
    # Somebody's who has no others: a user may have so many.
    theirs = await make_key(await globex.add_user("key-holder", "owner"))
    keys = {
        "an API key that was revoked": revoked.key,
        "an API key that has expired": expired.key,
        "an API key of a service account that is switched off": idle.key,
        "an API key that nobody made": f"key_{acme.tenant_id.hex}_{bytes(32).hex()}",
        "another tenant's API key under this one's name": f"key_{acme.tenant_id.hex}_{theirs.key.rpartition('_')[2]}",
        "an API key of an unknown tenant": f"key_{uuid4().hex}_{theirs.key.rpartition('_')[2]}",
        "half an API key": theirs.key[:60],
    }
    tenants = _forgeries(world, acme.access_token, folder) | {
        "expired": tenant(earlier),
        "another issuer's": tenant(foreign),
        "an operator's": world.operator.access_token,
        "a refresh token": acme.refresh_token,
        "of an unknown tenant": tenant(tid=uuid4()),
        "of another tenant, with this one's session": tenant(tid=globex.tenant_id),
        "of an unknown session": tenant(sid=uuid4()),
        "of somebody else's session": tenant(sub=UUID(str(gone.id))),
        "of a session that has ended": out.access_token,
        "of a user who was deactivated": gone.access_token,
        "of a user who is not active": off.access_token,
    }
    operators = _forgeries(world, world.operator.access_token, folder) | {
        "expired": earlier.issue(audience=AUDIENCE_PLATFORM, sub=operator, ttl=600)[0],
        "another issuer's": foreign.issue(audience=AUDIENCE_PLATFORM, sub=operator, ttl=600)[0],
        "a tenant's": acme.access_token,
        "a tenant's API key": theirs.key,
        "of an unknown operator": ours.issue(audience=AUDIENCE_PLATFORM, sub=uuid4(), ttl=600)[0],
        "of a tenant's user": ours.issue(audience=AUDIENCE_PLATFORM, sub=sub, ttl=600)[0],
    }
    return {"/api": tenants | keys, "/platform": operators}


@pytest.mark.parametrize("endpoint", GUARDED, ids=str)
async def test_without_a_good_token_the_answer_is_401_with_a_challenge(
    pair: Pair, bad_tokens: dict[str, dict[str, str]], endpoint: Endpoint
) -> None:
    good = pair.acme.access_token if endpoint in API else pair.world.operator.access_token
    headers: dict[str, dict[str, str]] = {
        name: {"Authorization": f"Bearer {token}"}
        for name, token in bad_tokens["/api" if endpoint in API else "/platform"].items()
    }
    headers |= {
        "none": {},
        "a bare scheme": {"Authorization": "Bearer"},
        "another scheme": {"Authorization": "Basic b3duZXI6cGFzc3dvcmQ="},
        "a good one under another scheme": {"Authorization": f"Token {good}"},
        "a good one in a cookie": {"Cookie": f"token={good}; Authorization=Bearer {good}"},
    }
    wrong = {}
    arguments: dict[str, Any] = {"json": body_of(endpoint.body)} if endpoint.body is not None else {}
    for name, header in headers.items():
        answer = await pair.world.http.request(endpoint.method, endpoint.url(), headers=header, **arguments)
        challenge = answer.headers.get("WWW-Authenticate", "")
        if answer.status_code != 401 or not challenge.startswith('Bearer realm="'):
            wrong[name] = (answer.status_code, challenge, answer.text)
    assert wrong == {}


async def test_a_good_token_in_the_address_is_no_token(pair: Pair) -> None:
    """RFC 6750 §2.3 would allow it; addresses end up in logs."""
    for name in ("access_token", "token", "authorization"):
        answer = await pair.world.http.get("/api/users/me", params={name: pair.acme.access_token})
        assert answer.status_code == 401


@pytest.mark.parametrize("endpoint", [each for each in GUARDED if each.path.startswith("/api/")], ids=str)
async def test_a_token_is_refused_on_a_host_that_names_another_tenant(pair: Pair, endpoint: Endpoint) -> None:
    host = {"Host": f"{pair.globex.slug}.app.example.com"}
    answer = await _call(pair.acme, endpoint, headers=host)
    assert answer.status_code == 401, answer.text
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="')
    assert answer.json()["detail"] == "The token is not for the organization that the host names."


async def test_however_the_host_is_spelt(pair: Pair) -> None:
    slug = pair.globex.slug
    for host in (
        f"{slug}.example.com",
        f"{slug.upper()}.EXAMPLE.com",
        f"{slug}.example.com:8443",
        f"{slug}.example.com.",
        f"{slug}.localhost",
        f"{slug}.x",
    ):
        assert (await pair.acme.get("/api/users/me", headers={"Host": host})).status_code == 401
    for host in (f"{pair.acme.slug}.example.com", "api.example.com", "localhost", "127.0.0.1:8000", "[::1]:8000"):
        assert (await pair.acme.get("/api/users/me", headers={"Host": host})).status_code == 200


async def test_credentials_are_refused_on_a_host_that_names_another_tenant(pair: Pair) -> None:
    """The public routes, which have no token to compare with the host."""
    acme, http = pair.acme, pair.world.http
    host = {"Host": f"{pair.globex.slug}.example.com"}
    login = {"email": acme.owner_email, "password": PASSWORD}
    assert (await http.post("/api/auth/login", json=login, headers=host)).status_code == 401
    named = await http.post("/api/auth/login", json={**login, "tenant": acme.slug}, headers=host)
    assert named.status_code == 422
    # Not the owner, who may have been given a passkey by another test.
    await acme.add_user("visitor", "member")
    session = await pair.world.log_in(acme.slug, f"visitor@{acme.slug}.example")
    refresh = {"refreshToken": session.refresh_token}
    assert (await http.post("/api/auth/refresh", json=refresh, headers=host)).status_code == 401
    # It was not spent by the attempt.
    assert (await http.post("/api/auth/refresh", json=refresh)).status_code == 200


def test_with_a_base_domain_every_host_below_it_names_a_tenant(pair: Pair) -> None:
    """A tenant that does not exist included: its name must not fall back to none."""
    hosts = HostNames(pair.world.app.state.registry, "App.Example.com")

    def named(host: str) -> str | None:
        scope: Any = {"headers": [(b"host", host.encode())]}
        return hosts.slug(scope)

    assert named("nobody.app.example.com") == "nobody"
    assert named(f"{pair.acme.slug}.app.example.com:443") == pair.acme.slug
    assert named(f"{pair.acme.slug}.elsewhere.com") is None
    assert named("app.example.com") is None
    assert named("evilapp.example.com") is None


# Permissions.


@pytest.fixture(scope="module")
async def viewer(pair: Pair) -> Caller:
    return await pair.acme.add_user("viewer", "viewer")


@pytest.mark.parametrize(
    "endpoint", [each for each in HANDLED if each.path.startswith("/api/") and not each.any_user], ids=str
)
async def test_a_viewer_reads_what_viewers_may_and_writes_nothing(
    pair: Pair, viewer: Caller, endpoint: Endpoint
) -> None:
    names = (*IDENTIFIERS, *CONTROL_PLANES)
    own = await _plant(pair.acme, names, linked=endpoint.parameters)
    before = await _snapshot(pair.acme)
    answer = await _call(viewer, endpoint, own)
    held = {
        permission.name
        for feature in DOMAIN_FEATURES
        for permission in feature.permissions
        if "viewer" in permission.roles
    }
    if endpoint.writes or not set(endpoint.permissions) <= held:
        assert answer.status_code == 403, answer.text
        assert await _snapshot(pair.acme) == before
    else:
        assert answer.status_code == 200, answer.text
    if endpoint.writes and set(endpoint.permissions) <= held:
        assert str(endpoint) in VIEWERS_MAY_TRY


async def test_a_caller_without_a_role_may_do_what_any_user_may_and_nothing_else(pair: Pair) -> None:
    nobody = await pair.acme.add_user("nobody")
    for endpoint in HANDLED:
        if endpoint in API and str(endpoint) not in {"POST /api/auth/logout", *ENDS_CALLER}:
            own = await _plant(
                pair.acme,
                (*endpoint.parameters, *identifiers_in(endpoint.body)),
                linked=endpoint.parameters,
                caller=nobody,
            )
            body = await prepare_factors(pair.acme, nobody, str(endpoint))
            answer = await _call(nobody, endpoint, own, **({} if body is None else {"json": body}))
            expected = {200, 201, 202, 204} if endpoint.any_user else {403}
            assert answer.status_code in expected, f"{endpoint}: {answer.text}"


@pytest.mark.parametrize(
    "endpoint", [each for each in WITH_IDS if each.any_user and str(each) not in ENDS_CALLER], ids=str
)
async def test_what_is_somebodys_alone_is_nothing_to_others(pair: Pair, endpoint: Endpoint) -> None:
    """To the owner, who may do everything else, no more than to anybody."""
    somebody = await pair.acme.add_user(f"somebody-{uuid4().hex[:8]}", "member")
    names = (*endpoint.parameters, *identifiers_in(endpoint.body))
    own = await _plant(pair.acme, names, caller=somebody)
    before = await _snapshot(pair.acme)
    answers = []
    for ids in (own, {name: uuid4() for name in names}):
        answer = await _call(pair.acme, endpoint, ids)
        assert answer.status_code in {404, 422}, answer.text
        answers.append(_comparable(answer, ids))
    assert answers[0] == answers[1]
    assert await _snapshot(pair.acme) == before


LIFECYCLE = {
    "GET /api/organization",
    "GET /api/organization/exports",
    "GET /api/organization/exports/{export_id}",
    "GET /api/organization/exports/{export_id}/content",
    "POST /api/organization/exports",
    "GET /platform/tenants/{slug}/exports",
    "GET /platform/tenants/{slug}/exports/{operation_id}/content",
    "POST /platform/imports",
    "POST /platform/tenants/{slug}/archive",
    "POST /platform/tenants/{slug}/clone",
    "POST /platform/tenants/{slug}/export",
    "POST /platform/tenants/{slug}/restore",
}


def test_what_moves_whole_tenants_is_among_the_cases() -> None:
    """Named here, since a route that were generated nowhere would fail nothing."""
    assert {str(endpoint) for endpoint in HANDLED} >= LIFECYCLE
    assert {str(endpoint) for endpoint in WITH_IDS} >= {name for name in LIFECYCLE if "{export_id}" in name}
