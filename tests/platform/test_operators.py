from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tenantry.platform.operators.service import OperatorService
from tenantry.tenancy.context import control_scope
from tenantry.tenancy.wiring import scope_times
from tests.databases import OPERATOR_EMAIL, OPERATOR_PASSWORD
from tests.platform.support import tenant_body
from tests.world import Caller, TenantHandle, World

Add = Callable[[str, str], Awaitable[Caller]]


@pytest.fixture
async def add_operator(world: World) -> Add:
    """Signs in a new operator of a role."""
    scope = control_scope(scope_times(world.settings), read_only=False)

    async def add(name: str, role: str) -> Caller:
        hashed = await world.app.state.hasher.hash(OPERATOR_PASSWORD)
        async with world.database.transaction(scope) as transaction:
            await OperatorService(session=transaction.session).add(
                email=f"{name}@platform.example", hashed_password=hashed, role=role, actor="cli:test"
            )
        answer = await world.http.post(
            "/platform/auth/login", json={"email": f"{name}@platform.example", "password": OPERATOR_PASSWORD}
        )
        assert answer.status_code == 200
        return Caller(world.http, answer.json()["accessToken"])

    return add


async def test_an_operator_logs_in_and_asks_who_they_are(world: World) -> None:
    answer = await world.http.post(
        "/platform/auth/login", json={"email": OPERATOR_EMAIL.upper(), "password": OPERATOR_PASSWORD}
    )
    assert answer.status_code == 200
    assert answer.json().keys() == {"accessToken", "tokenType", "expiresIn"}
    assert answer.json()["expiresIn"] == world.settings.operator_token_ttl
    me = (await Caller(world.http, answer.json()["accessToken"]).get("/platform/auth/me")).json()
    assert (me["email"], me["role"]) == (OPERATOR_EMAIL, "owner")
    assert "tenants:write" in me["permissions"]


async def test_an_unknown_operator_and_a_wrong_password_answer_alike(world: World, acme: TenantHandle) -> None:
    bodies = []
    for email, password in (
        (OPERATOR_EMAIL, "wrong"),
        ("nobody@platform.example", OPERATOR_PASSWORD),
        (acme.owner_email, "correct horse battery"),
    ):
        answer = await world.http.post("/platform/auth/login", json={"email": email, "password": password})
        assert answer.status_code == 401
        bodies.append({name: value for name, value in answer.json().items() if name not in {"requestId", "traceId"}})
    assert bodies == [bodies[0]] * 3


async def test_an_auditor_looks_and_changes_nothing(world: World, acme: TenantHandle, add_operator: Add) -> None:
    auditor = await add_operator("auditor", "auditor")
    for path in ("/platform/tenants", f"/platform/tenants/{acme.slug}", "/platform/plans"):
        assert (await auditor.get(path)).status_code == 200
    for method, path, body, permission in (
        ("POST", "/platform/tenants", tenant_body("auditors-own"), "tenants:write"),
        ("PATCH", f"/platform/tenants/{acme.slug}", {"name": "Mine"}, "tenants:write"),
        ("POST", f"/platform/tenants/{acme.slug}/suspend", {}, "tenants:suspend"),
        ("POST", f"/platform/tenants/{acme.slug}/resume", None, "tenants:suspend"),
    ):
        answer = await auditor.request(method, path, json=body)
        assert (answer.status_code, answer.json().get("permission")) == (403, permission), path
    assert (await world.operator.get("/platform/tenants/auditors-own")).status_code == 404


async def test_an_administrator_runs_tenants(acme: TenantHandle, add_operator: Add) -> None:
    admin = await add_operator("operator", "operator")
    assert (await admin.patch(f"/platform/tenants/{acme.slug}", json={"name": "Acme Inc"})).status_code == 200


async def test_a_deactivated_operator_is_out_with_the_next_request(world: World, add_operator: Add) -> None:
    gone = await add_operator("gone", "operator")
    scope = control_scope(scope_times(world.settings), read_only=False)
    async with world.database.transaction(scope) as transaction:
        await transaction.connection.fetch(
            "UPDATE operator SET is_active = false WHERE email = 'gone@platform.example'"
        )
    assert (await gone.get("/platform/tenants")).status_code == 401
    answer = await world.http.post(
        "/platform/auth/login", json={"email": "gone@platform.example", "password": OPERATOR_PASSWORD}
    )
    assert answer.status_code == 401


async def test_the_two_planes_take_each_others_tokens_for_nothing(world: World, acme: TenantHandle) -> None:
    for caller, path in ((world.operator, "/api/teams"), (acme, "/platform/tenants"), (acme, "/platform/auth/me")):
        answer = await caller.get(path)
        assert answer.status_code == 401
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
