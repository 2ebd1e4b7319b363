"""The control plane's routes, whoever added them: each role of operators may do what it is for, and nothing else."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tenantry.kernel.security import AUDIENCE_PLATFORM, Tokens
from tenantry.platform.access import OPERATOR_PERMISSIONS
from tenantry.platform.operators.models import Operator
from tenantry.tenancy.context import ScopeTimes, control_scope
from tests.isolation.routes import ENDPOINTS, body_of
from tests.world import Caller, World

ROUTES = [
    endpoint
    for endpoint in ENDPOINTS
    if endpoint.path.startswith("/platform/") and endpoint.method != "OPTIONS" and not endpoint.is_public
]

ASKS_FOR_MORE = {
    "POST /platform/tenants/{slug}/clone": ("tenants:purge", "the least body asks for a clone that is not masked"),
}
"""Where what is asked for decides: the permission that a request with the least body needs besides, and why."""


@pytest.mark.parametrize("role", OPERATOR_PERMISSIONS)
async def test_each_operator_may_do_what_their_role_is_for_and_nothing_else(world: World, role: str) -> None:
    """Whatever else is wrong with a request: slugs and ids are of nothing. What may not be tried is refused first."""
    tokens = Tokens(world.app.state.keyring, world.settings.token_issuer)
    operator_id = uuid4()
    async with world.database.transaction(control_scope(ScopeTimes(), read_only=False)) as transaction:
        transaction.session.add(
            Operator(id=operator_id, email=f"{operator_id.hex}@example.com", hashed_password="none", role=role)
        )
    token, _ = tokens.issue(audience=AUDIENCE_PLATFORM, sub=operator_id, ttl=600)
    caller, held = Caller(world.http, token), OPERATOR_PERMISSIONS[role]
    wrong = {}
    for endpoint in ROUTES:
        body = body_of(endpoint.body)
        answer = await caller.request(endpoint.method, endpoint.url(), **({} if body is None else {"json": body}))
        needed = {*endpoint.permissions, *ASKS_FOR_MORE.get(str(endpoint), ())[:1]}
        assert answer.status_code < 500, f"{endpoint}: {answer.text}"
        if (answer.status_code == 403) == (needed <= held):
            wrong[str(endpoint)] = answer.text
    assert wrong == {}


def test_whoever_may_only_look_can_change_nothing() -> None:
    writing = [endpoint for endpoint in ROUTES if endpoint.writes]
    assert [str(endpoint) for endpoint in writing if not endpoint.permissions] == []
    asked_for = {permission for endpoint in writing for permission in endpoint.permissions}
    assert not asked_for & OPERATOR_PERMISSIONS["auditor"]
