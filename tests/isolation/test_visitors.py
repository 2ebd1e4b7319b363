"""Every route by operators who were let in: nothing of people's own, no write to who may look, a trail of it all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.domain.visitors import Visitor, consent, hire, let_in
from tests.isolation.routes import Endpoint, identifiers_in, snapshot
from tests.isolation.test_routes import (
    API,
    GUARDED,
    HANDLED,
    TIED,
    WITH_IDS,
    Pair,
    _call,
    _comparable,
    _plant,
    _snapshot,
)
from tests.isolation.test_routes import pair as pair
from tests.world import TenantHandle

OPEN_TO_READ = {
    "GET /api/audit": "what has happened: ids",
    "GET /api/audit/export": "likewise",
    "GET /api/invitations": "who is on the way in; without the credential",
    "GET /api/jobs/{job_id}": "what has become of a job",
    "GET /api/organization": "its name and plan",
    "GET /api/organization/security": "its rules",
    "GET /api/permissions": "what there is to permit",
    "GET /api/roles": "who may do what",
    "GET /api/roles/{role_id}": "likewise",
    "GET /api/sso/connections": "by whom people sign in; without the client's secret",
    "GET /api/sso/connections/{connection_id}": "likewise",
    "GET /api/sso/connections/{connection_id}/identities": "why somebody cannot sign in",
    "GET /api/tags": "the organization's own",
    "GET /api/tags/{tag_id}": "likewise",
    "GET /api/teams": "likewise",
    "GET /api/teams/{team_id}": "likewise",
    "GET /api/teams/{team_id}/members": "who is in it",
    "GET /api/tenant": "what it may use",
    "GET /api/tenant/usage": "and has used",
    "GET /api/users": "who is there: the commonest question",
    "GET /api/users/{user_id}": "likewise",
    "GET /api/webhooks": "where events go; without the secret",
    "GET /api/webhooks/event-types": "what there is to hear of",
    "GET /api/webhooks/{webhook_id}": "as the list",
    "GET /api/webhooks/{webhook_id}/deliveries": "why something did not arrive",
    "GET /api/webhooks/{webhook_id}/deliveries/{delivery_id}": "likewise",
}
"""Routes that an operator who was let in to look may call, and why. To add one is a decision: `Permission`."""
OPEN_TO_WRITE = {
    "POST /api/tags": "what owners ask operators to put right",
    "PATCH /api/tags/{tag_id}": "likewise",
    "DELETE /api/tags/{tag_id}": "likewise",
    "POST /api/tags/{tag_id}/merge": "likewise",
    "GET /api/teams/{team_id}/invitations": "who is on the way into a team, for whoever runs it",
    "PATCH /api/teams/{team_id}": "likewise",
    "DELETE /api/teams/{team_id}": "likewise",
    "POST /api/teams/{team_id}/members": "likewise",
    "PATCH /api/teams/{team_id}/members/{user_id}": "likewise",
    "DELETE /api/teams/{team_id}/members/{user_id}": "likewise",
}
"""Likewise, with a grant to write."""

ROUTES = [each for each in HANDLED if each in API]


@dataclass(frozen=True)
class House:
    """An organization with two operators in it, and its neighbour."""

    pair: Pair
    looks: Visitor
    writes: Visitor


@pytest.fixture(scope="module")
async def house(pair: Pair) -> House:
    """Of the operators' own: the others' are full of what the tests before have planted."""
    acme = await pair.world.create_tenant("visited")
    operator, _ = await hire(pair.world)
    await consent(acme, access="write", hours=72)
    opened = Pair(acme, pair.globex, pair.world)
    return House(opened, await let_in(acme, operator), await let_in(acme, operator, access="write"))


def _without_trail(rows: dict[str, Any]) -> dict[str, Any]:
    """All but the trail, which is written, and how far the provisioner is with exports."""
    lasting = {name: found for name, found in rows.items() if name not in {"audit_event", "api_key"}}
    return lasting | {"own exports": [row["id"] for row in rows["own exports"]]}


async def _own_ids(house: House, endpoint: Endpoint) -> dict[str, UUID]:
    names = (*endpoint.parameters, *identifiers_in(endpoint.body))
    linked = names if str(endpoint) in TIED else endpoint.parameters
    return await _plant(house.pair.acme, names, linked=linked)


async def _last_use(house: House, visitor: Visitor) -> dict[str, Any]:
    query = {"name": "operator_access.used", "subject": str(visitor.access_id), "pageSize": 1}
    found: dict[str, Any] = (await house.pair.acme.get("/api/audit", params=query)).json()["items"][0]
    return found


@pytest.mark.parametrize("endpoint", ROUTES, ids=str)
async def test_who_was_let_in_to_look_does_that_and_changes_nothing(house: House, endpoint: Endpoint) -> None:
    ids = await _own_ids(house, endpoint)
    before = await _snapshot(house.pair.acme)
    answer = await _call(house.looks, endpoint, ids)
    if str(endpoint) in OPEN_TO_READ:
        assert answer.status_code == 200, answer.text
    else:
        assert answer.status_code == 403, answer.text
    assert _without_trail(await _snapshot(house.pair.acme)) == _without_trail(before)
    used = await _last_use(house, house.looks)
    assert used["actor"] == f"operator:{house.looks.id}"
    assert used["payload"] == {
        "method": endpoint.method,
        "route": endpoint.path,
        "ids": [str(ids[name]) for name in endpoint.parameters],
        "refused": str(endpoint) not in OPEN_TO_READ,
    }


@pytest.mark.parametrize("endpoint", ROUTES, ids=str)
async def test_who_was_let_in_to_write_changes_what_is_said_and_nothing_else(house: House, endpoint: Endpoint) -> None:
    ids = await _own_ids(house, endpoint)
    before = await _snapshot(house.pair.acme)
    answer = await _call(house.writes, endpoint, ids)
    if str(endpoint) in OPEN_TO_READ or str(endpoint) in OPEN_TO_WRITE:
        assert answer.is_success, answer.text
    else:
        assert answer.status_code == 403, answer.text
        assert _without_trail(await _snapshot(house.pair.acme)) == _without_trail(before)


async def _every_row(tenant: TenantHandle) -> dict[str, list[dict[str, Any]]]:
    async with tenant.world.database.transaction(tenant.context.read_scope) as transaction:
        return await snapshot(transaction.session)


@pytest.mark.parametrize("endpoint", [each for each in ROUTES if str(each) in OPEN_TO_READ], ids=str)
async def test_what_they_read_holds_no_secret(house: House, endpoint: Endpoint) -> None:
    """No credential, hash or sealed key of anybody's, whichever table it is in."""
    ids = await _own_ids(house, endpoint)
    answer = await _call(house.looks, endpoint, ids)
    assert answer.status_code == 200, answer.text
    secrets = [
        value
        for rows in (await _every_row(house.pair.acme)).values()
        for row in rows
        for name, value in row.items()
        if isinstance(value, bytes) or name in {"hashed_password"}
    ]
    said = answer.text
    for secret in secrets:
        spelt = (secret.hex(),) if isinstance(secret, bytes) else (str(secret),) if secret else ()
        assert not any(each and each in said for each in spelt)


@pytest.mark.parametrize("endpoint", [each for each in WITH_IDS if str(each) in OPEN_TO_READ | OPEN_TO_WRITE], ids=str)
async def test_to_them_another_tenants_ids_are_those_of_nothing(house: House, endpoint: Endpoint) -> None:
    names = (*endpoint.parameters, *identifiers_in(endpoint.body))
    foreign = await _plant(house.pair.globex, names, linked=endpoint.parameters)
    before = await _snapshot(house.pair.globex)
    answers = []
    for ids in (foreign, {name: uuid4() for name in names}):
        answer = await _call(house.writes, endpoint, ids)
        assert answer.status_code in {404, 422}, answer.text
        answers.append(_comparable(answer, ids))
    assert answers[0] == answers[1]
    assert await _snapshot(house.pair.globex) == before


@pytest.mark.parametrize("endpoint", [each for each in GUARDED if each in API], ids=str)
async def test_their_token_is_refused_on_a_host_that_names_another_tenant(house: House, endpoint: Endpoint) -> None:
    host = {"Host": f"{house.pair.globex.slug}.app.example.com"}
    answer = await _call(house.writes, endpoint, headers=host)
    assert answer.status_code == 401, answer.text
