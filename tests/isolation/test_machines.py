"""Every route by API keys: what their scopes open, what is for people alone, and nobody else's ids."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.domain.machines import Machine, make_account, make_key
from tests.isolation.routes import Endpoint, identifiers_in
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

KEYS_OPEN = {"GET /api/users/me": "says whose the key is and what it permits"}
"""Routes that ask for no permission and that API keys open all the same: no scope could keep one out."""
NO_KEYS = {
    "POST /api/users": "sets a password, by which the machine would be a person",
    "PATCH /api/organization/account-policy": "opens the organization, to an address of the machine's, say",
    "POST /api/invitations": "makes a credential, by which the machine could be one",
    "POST /api/invitations/{invitation_id}/resend": "likewise",
    "DELETE /api/invitations/{invitation_id}": "ends one",
    "POST /api/sso/connections": "says who people are, and so who the machine could be",
    "PATCH /api/sso/connections/{connection_id}": "likewise",
    "DELETE /api/sso/connections/{connection_id}": "likewise",
    "POST /api/sso/connections/{connection_id}/check": "is for whoever keeps it",
    "DELETE /api/sso/connections/{connection_id}/identities/{identity_id}": "says who somebody is not",
    "DELETE /api/users/{user_id}/second-factor": "with it a password alone would make the machine a person",
    "PATCH /api/organization/security": "what everybody needs is a person's decision",
    "POST /api/teams/{team_id}/invitations": "a person stands behind it, and it may hold a credential",
    "POST /api/team-invitations/{team_invitation_id}/resend": "likewise",
    "POST /api/users/{user_id}/erase": "there is no way back",
    "POST /api/operator-access/grants": "lets the platform's operators in, which is an owner's own decision",
    "POST /api/operator-access/requests/{access_request_id}/accept": "likewise",
    "POST /api/operator-access/requests/{access_request_id}/decline": "likewise",
    "DELETE /api/team-invitations/{team_invitation_id}": "likewise",
    "GET /api/users/{user_id}/sessions": "where people are is people's business",
    "DELETE /api/users/{user_id}/sessions": "ends credentials",
    "DELETE /api/users/{user_id}/sessions/{session_id}": "ends one",
}
"""Routes that ask for a permission and that no API key opens, besides those that manage keys and service accounts."""


def _refuses_keys(endpoint: Endpoint) -> bool:
    if endpoint.any_user:
        return str(endpoint) not in KEYS_OPEN
    return str(endpoint) in NO_KEYS or not {"api_keys:manage", "service_accounts:manage"}.isdisjoint(
        endpoint.permissions
    )


@pytest.fixture(scope="module")
async def shop(pair: Pair) -> Pair:
    """With an organization of the machines' own: the others' are full of what the tests before have planted."""
    return Pair(await pair.world.create_tenant("workshop"), pair.globex, pair.world)


@pytest.fixture(scope="module")
async def machine(shop: Pair) -> Machine:
    """With every permission as its scope."""
    mechanic = await shop.acme.add_user("mechanic", "owner")
    return await make_key(mechanic, *(await mechanic.get("/api/users/me")).json()["permissions"])


@pytest.fixture(scope="module")
async def powerless(shop: Pair) -> list[Machine]:
    """An owner's and an administrator's, that may see roles and nothing else."""
    account = await make_account(shop.acme, "Powerless", roles=("admin",))
    idler = await shop.acme.add_user("idler", "owner")
    return [await make_key(idler), await make_key(idler, path=f"{account}/api-keys")]


@pytest.mark.parametrize("endpoint", [each for each in HANDLED if each in API], ids=str)
async def test_an_api_key_opens_what_its_scopes_say_and_no_route_that_is_for_people(
    shop: Pair, machine: Machine, powerless: list[Machine], endpoint: Endpoint
) -> None:
    """The same call by keys with one scope, a user's and a service account's, and by one with every scope."""
    names = (*endpoint.parameters, *identifiers_in(endpoint.body))
    own = await _plant(shop.acme, names, linked=names if str(endpoint) in TIED else endpoint.parameters)
    before = await _snapshot(shop.acme)
    for one in powerless:
        answer = await _call(one, endpoint, own)
        allowed = set(endpoint.permissions) <= {"roles:read"} and not _refuses_keys(endpoint)
        # `me` is a user's, of whom a service account has none.
        wanted = {200, 403} if endpoint.any_user and allowed else {200 if allowed else 403}
        assert answer.status_code in wanted, answer.text
    assert _lasting(await _snapshot(shop.acme)) == _lasting(before)
    answer = await _call(machine, endpoint, own)
    if _refuses_keys(endpoint):
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems/person-required")
    else:
        assert answer.is_success, answer.text


def _lasting(rows: dict[str, Any]) -> dict[str, Any]:
    """Without what changes by itself: when keys were last used, and how far the provisioner is with exports."""
    lasting = {name: found for name, found in rows.items() if name != "api_key"}
    return lasting | {"own exports": [{"id": row["id"]} for row in rows["own exports"]]}


@pytest.mark.parametrize("endpoint", [each for each in WITH_IDS if not _refuses_keys(each)], ids=str)
async def test_to_an_api_key_another_tenants_ids_are_those_of_nothing(
    shop: Pair, machine: Machine, endpoint: Endpoint
) -> None:
    names = (*endpoint.parameters, *identifiers_in(endpoint.body))
    foreign = await _plant(shop.globex, names, linked=endpoint.parameters)
    before = await _snapshot(shop.globex)
    answers = []
    for ids in (foreign, {name: uuid4() for name in names}):
        answer = await _call(machine, endpoint, ids)
        assert answer.status_code in {404, 422}, answer.text
        answers.append(_comparable(answer, ids))
    assert answers[0] == answers[1]
    assert await _snapshot(shop.globex) == before


@pytest.mark.parametrize("endpoint", [each for each in GUARDED if each in API], ids=str)
async def test_an_api_key_is_refused_on_a_host_that_names_another_tenant(
    shop: Pair, machine: Machine, endpoint: Endpoint
) -> None:
    host = {"Host": f"{shop.globex.slug}.app.example.com"}
    answer = await _call(machine, endpoint, headers=host)
    assert answer.status_code == 401, answer.text
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="')
    assert answer.json()["detail"] == "The API key is not valid."
