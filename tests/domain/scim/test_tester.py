"""`scim2-tester`, the conformance checks of the SCIM project, against the running API."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, overload

import httpx2
import pytest
from scim2_client.engines.httpx2 import SyncSCIMClient
from scim2_models import ScimProvider
from scim2_tester import Status, check_server

from tests.databases import Template, clone_database, drop_database
from tests.faults.deployment import Deployment, Session, open_deployment

_numbers = itertools.count(1)


class _Addresses(Sequence[str]):
    """Examples of a userName, none of them used before.

    The tester makes names up, and by the schema any text is one (RFC 7643 §4.1.1); ours are addresses of mail.
    """

    def __len__(self) -> int:
        return 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return f"tested-{next(_numbers)}@people.example"


@pytest.fixture(scope="module")
def deployment(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    addresses = asyncio.run(clone_database(template))
    try:
        with open_deployment(addresses, tmp_path_factory.mktemp("scim")) as opened:
            yield opened
    finally:
        asyncio.run(drop_database(addresses))


def _post(deployment: Deployment, session: Session, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = deployment.client.post(path, json=body, headers=session.headers)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _everything(deployment: Deployment, session: Session) -> list[Any]:
    paths = ("/api/users", "/api/teams", "/api/audit", "/api/roles", "/api/service-accounts")
    found = []
    for path in paths:
        answer = deployment.client.get(path, params={"pageSize": 200}, headers=session.headers)
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
    return found


def _key(deployment: Deployment, session: Session) -> str:
    """Of a directory that may hand out an administrator's role, since the tester gives all that the schema names."""
    permissions = deployment.client.get("/api/users/me", headers=session.headers).json()["permissions"]
    role = _post(deployment, session, "/api/roles", {"name": "Directory", "permissions": permissions})
    account = _post(deployment, session, "/api/service-accounts", {"name": "Directory", "roles": [role["slug"]]})
    path = f"/api/service-accounts/{account['id']}/api-keys"
    made = _post(deployment, session, path, {"name": "SCIM", "scopes": permissions})
    key: str = made["key"]
    return key


def _client(deployment: Deployment, key: str) -> tuple[httpx2.Client, SyncSCIMClient]:
    http = httpx2.Client(
        base_url=f"{deployment.url}/api/scim/v2", headers={"Authorization": f"Bearer {key}"}, timeout=30
    )
    return http, SyncSCIMClient(http)


def test_scim2_tester_finds_nothing_wrong_and_the_neighbour_notices_nothing(deployment: Deployment) -> None:
    acme, globex = deployment.create_tenant("acme"), deployment.create_tenant("globex")
    _post(deployment, globex, "/api/teams", {"name": "Red"})
    before = _everything(deployment, globex)
    http, client = _client(deployment, _key(deployment, acme))
    with http:
        client.discover()
        found: ScimProvider = client.provider
        user: Any = found.model_for("User")
        user.model_fields["user_name"].examples = _Addresses()
        # Who comes with no roles is a member, which the tester does not expect to find beside what it adds.
        user.Roles.model_fields["value"].examples = ["member"]
        results = check_server(client)
    wrong = [f"{each.title} ({each.resource_type}): {each.reason}" for each in results if each.status != Status.SUCCESS]
    assert wrong == [], "\n".join(wrong)
    assert {each.resource_type for each in results} == {None, "User", "Group"}
    # It tidies up behind itself; what it made meanwhile is in the trail.
    assert len(results) > 40
    assert _everything(deployment, globex) == before
