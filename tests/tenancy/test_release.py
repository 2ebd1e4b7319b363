"""A release serves the tenants whose schemas it can read, and turns the others away, whichever way they come in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tenantry.tenancy import release
from tenantry.tenancy.migrations import head
from tenantry.tenancy.release import OLDEST_SERVED, served_range, served_revisions
from tenantry.tenancy.revisions import UnknownRevisionError, revisions
from tests.domain.sso.issuer import open_issuer
from tests.domain.sso.support import Browser, connect_to
from tests.isolation.routes import ENDPOINTS, body_of
from tests.platform.support import as_admin, eventually, open_api, tenant_body
from tests.tenancy.trees import Trees, revision_text
from tests.world import PASSWORD, Caller, TenantHandle, World

AHEAD = "9999"
"""A revision that only a later release can have made."""


class Ledger:
    """Writes the revision of tenants down as a rollout does, without changing their schemas."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._before: dict[str, str] = {}

    async def put(self, tenant: TenantHandle, revision: str) -> None:
        async with as_admin(self._world.addresses) as admin:
            before = await admin.fetchval("SELECT revision FROM platform.tenant WHERE id = $1", tenant.tenant_id)
            self._before.setdefault(str(tenant.tenant_id), before)
            await admin.execute("UPDATE platform.tenant SET revision = $2 WHERE id = $1", tenant.tenant_id, revision)
        await self._world.app.state.registry.refresh()

    async def restore(self) -> None:
        async with as_admin(self._world.addresses) as admin:
            await admin.executemany(
                "UPDATE platform.tenant SET revision = $2 WHERE id = $1::text::uuid", list(self._before.items())
            )
        await self._world.app.state.registry.refresh()


@pytest.fixture
async def ledger(world: World) -> AsyncIterator[Ledger]:
    made = Ledger(world)
    yield made
    await made.restore()


def _is_refused(answer: httpx.Response, revision: str, oldest: str, newest: str) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) >= 1
    problem: dict[str, Any] = answer.json()
    if "/scim/" in answer.request.url.path:
        # In SCIM's form, which has no members for it.
        assert problem["status"] == "503"
        return
    assert problem["type"] == "/problems/tenant-revision"
    assert (problem["revision"], problem["oldestServed"], problem["newestServed"]) == (revision, oldest, newest)


def test_the_oldest_revision_that_is_served_is_one_of_the_tree() -> None:
    line = [revision.id for revision in revisions("tenant")]
    served = served_range()
    assert OLDEST_SERVED in line
    assert (served.oldest, served.newest) == (OLDEST_SERVED, line[-1])
    assert served_revisions() == set(line[line.index(OLDEST_SERVED) :])


def test_the_range_goes_from_the_oldest_served_to_the_head_in_the_order_of_the_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = Trees(tmp_path, monkeypatch)
    # Names that do not sort as the tree does.
    for number, after in (("0009", None), ("0001", "0009"), ("0005", "0001"), ("0003", "0005")):
        trees.add("tenant", number, revision_text(number, after))
    monkeypatch.setattr(release, "OLDEST_SERVED", "0001")
    assert served_range().revisions == ("0001", "0005", "0003")
    assert served_revisions() == {"0001", "0005", "0003"}
    monkeypatch.setattr(release, "OLDEST_SERVED", "0003")
    assert served_revisions() == {"0003"}


async def test_a_release_whose_oldest_revision_is_not_in_the_tree_does_not_start(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "OLDEST_SERVED", "0815")
    with pytest.raises(UnknownRevisionError, match="'0815'"):
        async with open_api(world.addresses, world.settings.home):
            pass  # pragma: no cover - it does not come to that


async def test_tenants_before_and_after_the_range_are_refused_while_their_neighbours_are_served(
    world: World, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = head("tenant")
    before, oldest, last, ahead = (f"{int(newest) + more:04}" for more in range(4))
    tenants = {revision: await world.create_tenant("ranged") for revision in (before, oldest, last, ahead)}
    trees = Trees(tmp_path, monkeypatch)
    trees.copy("tenant")
    for number, after in ((oldest, before), (last, oldest)):
        trees.add("tenant", number, revision_text(number, after))
    monkeypatch.setattr(release, "OLDEST_SERVED", oldest)
    for revision, tenant in tenants.items():
        await ledger.put(tenant, revision)
    async with open_api(world.addresses, world.settings.home) as later:
        answers = {
            revision: await Caller(later.http, tenant.access_token).get("/api/teams")
            for revision, tenant in tenants.items()
        }
        assert {revision: answer.status_code for revision, answer in answers.items()} == {
            before: 503,
            oldest: 200,
            last: 200,
            ahead: 503,
        }
        for revision in (before, ahead):
            _is_refused(answers[revision], revision, oldest, last)


async def test_a_tenant_is_served_again_as_soon_as_it_is_migrated(
    world: World, ledger: Ledger, acme: TenantHandle, globex: TenantHandle
) -> None:
    head = served_range().newest
    await ledger.put(acme, AHEAD)
    _is_refused(await acme.get("/api/teams"), AHEAD, OLDEST_SERVED, head)
    assert (await globex.get("/api/teams")).status_code == 200

    async def is_served() -> bool:
        return (await acme.get("/api/teams")).status_code == 200

    async with as_admin(world.addresses) as admin:
        await admin.execute("UPDATE platform.tenant SET revision = $2 WHERE id = $1", acme.tenant_id, head)
    await eventually(is_served, 1.0)


async def test_no_route_lets_a_tenant_in_that_is_not_served(
    world: World, ledger: Ledger, acme: TenantHandle, globex: TenantHandle
) -> None:
    """All routes of the tenants' plane; those without a token have tests of their own, below."""
    await ledger.put(acme, AHEAD)
    tried = 0
    for endpoint in ENDPOINTS:
        if not endpoint.path.startswith("/api/") or endpoint.is_public:
            continue
        body = body_of(endpoint.body)
        answer = await acme.request(endpoint.method, endpoint.url(), **({} if body is None else {"json": body}))
        _is_refused(answer, AHEAD, OLDEST_SERVED, served_range().newest)
        tried += 1
    assert tried > 20
    assert (await globex.get("/api/users/me")).status_code == 200


def test_the_routes_that_find_their_tenant_themselves_are_those_that_are_tested_here() -> None:
    public = {str(endpoint) for endpoint in ENDPOINTS if endpoint.path.startswith("/api/") and endpoint.is_public}
    assert public == {
        *("POST /api/auth/login", "POST /api/auth/refresh", "POST /api/auth/invitations/accept"),
        *("POST /api/auth/team-invitations/accept", "POST /api/auth/team-invitations/decline"),
        *("POST /api/auth/password-reset", "POST /api/auth/password-reset/confirm"),
        *("POST /api/auth/verify-email/request", "POST /api/auth/verify-email"),
        *("POST /api/auth/email-change/confirm", "POST /api/auth/email-change/cancel"),
        *("POST /api/auth/sign-up", "POST /api/auth/sign-up/accept"),
        # These are about no tenant: there is none yet, or the control plane alone is asked.
        *("POST /api/signup", "POST /api/signup/confirm", "POST /api/auth/organizations"),
        *("POST /api/auth/sso/start", "GET /api/auth/sso/start", "GET /api/auth/sso/callback"),
        *("POST /api/auth/sso/token", "POST /api/auth/login/second-factor"),
        *("POST /api/auth/passkeys/options", "POST /api/auth/passkeys/login"),
    }


async def test_signing_in_by_a_provider_is_refused_at_each_of_its_steps(
    world: World, ledger: Ledger, acme: TenantHandle
) -> None:
    browser = Browser(world)
    async with open_issuer() as issuer:
        connection = await connect_to(issuer, acme)
        comes_back = issuer.authorize(await browser.set_off(acme))
        await ledger.put(acme, AHEAD)
        start = {"tenant": acme.slug, "connection": connection["id"], "codeChallenge": browser.challenge}
        for answer in (
            await browser.locate(acme),
            await browser.http.get("/api/auth/sso/start", params=start),
            await browser.http.get(comes_back),
            await browser.trade(f"ssc_{acme.tenant_id.hex}_{'0' * 64}"),
        ):
            _is_refused(answer, AHEAD, OLDEST_SERVED, served_range().newest)
    await browser.http.aclose()


@pytest.mark.parametrize("email", ["owner", "nobody"])
async def test_what_is_asked_for_without_a_token_is_refused_whether_or_not_there_is_an_account(
    world: World, ledger: Ledger, acme: TenantHandle, email: str
) -> None:
    await ledger.put(acme, AHEAD)
    asked = {"tenant": acme.slug, "email": f"{email}@{acme.slug}.example"}
    token = f"{acme.tenant_id.hex}_{'0' * 64}"
    signed = {"clientDataJSON": "AA", "authenticatorData": "AA", "signature": "AA"}
    passkey = {"id": "AA", "rawId": "AA", "response": signed}
    for path, body in (
        ("password-reset", asked),
        ("password-reset/confirm", {"token": f"pwr_{token}", "password": PASSWORD}),
        ("verify-email/request", asked),
        ("verify-email", {"token": f"emv_{token}"}),
        ("email-change/confirm", {"token": f"emc_{token}"}),
        ("email-change/cancel", {"token": f"emc_{token}"}),
        ("sign-up", asked),
        ("sign-up/accept", {"token": f"sup_{token}", "password": PASSWORD}),
        ("login/second-factor", {"challenge": f"mfa_{token}", "code": "123456"}),
        ("passkeys/options", {"tenant": acme.slug}),
        ("passkeys/login", {"tenant": acme.slug, "challenge": "x", "passkey": passkey}),
    ):
        answer = await world.http.post(f"/api/auth/{path}", json=body)
        _is_refused(answer, AHEAD, OLDEST_SERVED, served_range().newest)


@pytest.mark.parametrize("password", [PASSWORD, "something else entirely"])
async def test_logging_in_is_refused_whatever_the_password(
    world: World, ledger: Ledger, acme: TenantHandle, globex: TenantHandle, password: str
) -> None:
    await ledger.put(acme, AHEAD)
    for _ in range(world.settings.login_failures + 1):
        # None of them counts as a failure: nobody has looked at a password.
        answer = await world.http.post(
            "/api/auth/login", json={"tenant": acme.slug, "email": acme.owner_email, "password": password}
        )
        _is_refused(answer, AHEAD, OLDEST_SERVED, served_range().newest)
    await world.log_in(globex.slug, globex.owner_email)
    await ledger.restore()
    await world.log_in(acme.slug, acme.owner_email)


async def test_a_suspended_tenants_accounts_are_not_read_at_a_revision_that_is_not_served(
    world: World, ledger: Ledger, acme: TenantHandle
) -> None:
    assert (await world.operator.post(f"/platform/tenants/{acme.slug}/suspend")).status_code == 200
    await ledger.put(acme, AHEAD)
    answer = await world.http.post(
        "/api/auth/login", json={"tenant": acme.slug, "email": acme.owner_email, "password": PASSWORD}
    )
    _is_refused(answer, AHEAD, OLDEST_SERVED, served_range().newest)


async def test_a_refresh_token_is_not_spent_on_a_refusal(
    world: World, ledger: Ledger, acme: TenantHandle, globex: TenantHandle
) -> None:
    await ledger.put(acme, AHEAD)
    refused = await world.http.post("/api/auth/refresh", json={"refreshToken": acme.refresh_token})
    _is_refused(refused, AHEAD, OLDEST_SERVED, served_range().newest)
    served = await world.http.post("/api/auth/refresh", json={"refreshToken": globex.refresh_token})
    assert served.status_code == 200
    await ledger.restore()
    again = await world.http.post("/api/auth/refresh", json={"refreshToken": acme.refresh_token})
    assert again.status_code == 200


async def test_an_invitation_is_not_spent_on_a_refusal(world: World, ledger: Ledger, globex: TenantHandle) -> None:
    made = await world.operator.post("/platform/tenants", json=tenant_body("invited", ownerPassword=None))
    assert made.status_code == 201
    body = made.json()
    invited = TenantHandle(world.http, "", slug="invited", tenant_id=body["id"], world=world)
    payload = {"token": body["ownerInvitation"], "password": PASSWORD}
    await ledger.put(invited, AHEAD)
    refused = await world.http.post("/api/auth/invitations/accept", json=payload)
    _is_refused(refused, AHEAD, OLDEST_SERVED, served_range().newest)
    assert (await globex.get("/api/users/me")).status_code == 200
    await ledger.restore()
    accepted = await world.http.post("/api/auth/invitations/accept", json=payload)
    assert accepted.status_code == 200


@pytest.mark.parametrize("verb", ["accept", "decline"])
async def test_an_invitation_to_a_team_is_not_spent_on_a_refusal(
    world: World, ledger: Ledger, acme: TenantHandle, verb: str
) -> None:
    team = await acme.add_team("Red")
    made = await acme.post(f"/api/teams/{team['id']}/invitations", json={"email": "new@people.example"})
    payload = {"token": made.json()["token"]} | ({"password": PASSWORD} if verb == "accept" else {})
    await ledger.put(acme, AHEAD)
    refused = await world.http.post(f"/api/auth/team-invitations/{verb}", json=payload)
    _is_refused(refused, AHEAD, OLDEST_SERVED, served_range().newest)
    await ledger.restore()
    answered = await world.http.post(f"/api/auth/team-invitations/{verb}", json=payload)
    assert answered.is_success


async def test_operators_manage_a_tenant_that_is_not_served(world: World, ledger: Ledger, acme: TenantHandle) -> None:
    await ledger.put(acme, AHEAD)
    shown = await world.operator.get(f"/platform/tenants/{acme.slug}")
    assert (shown.status_code, shown.json()["revision"]) == (200, AHEAD)
    suspended = await world.operator.post(f"/platform/tenants/{acme.slug}/suspend")
    assert suspended.status_code == 200
