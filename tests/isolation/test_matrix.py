"""Every route of organizations by every built-in role, against the table in matrix.txt.

The manifests say what a role may do, one permission at a time; the table says what comes of it, for people to read. A
route that is new, or opens to somebody else than before, is a line of the table in the same change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import insert, select

from tenantry.domain.roles.models import BUILTIN_ROLES
from tenantry.domain.team_invitations.models import TeamInvitation
from tenantry.domain.teams.models import TeamMember
from tests.isolation.factors import prepare_factors
from tests.isolation.routes import ENDPOINTS, Endpoint, body_of, identifiers_in
from tests.isolation.test_routes import CONTROL_PLANES, ENDS_CALLER, TIED, Pair, _call, _plant, _snapshot
from tests.isolation.test_routes import pair as pair
from tests.world import PASSWORD, Caller

COLUMNS = (*BUILTIN_ROLES, "nobody")
WORDS = {"yes", "no", "team", "self"}
ROUTES = [each for each in ENDPOINTS if each.path.startswith("/api/") and each.method != "OPTIONS"]
GUARDED = [each for each in ROUTES if not each.is_public]


def _read_table() -> dict[str, tuple[str, ...]]:
    lines = (Path(__file__).parent / "matrix.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    assert tuple(rows[0][2:]) == COLUMNS
    return {f"{method} {path}": tuple(cells) for method, path, *cells in rows[1:]}


TABLE = _read_table()


def test_the_table_has_every_route_once_in_order() -> None:
    assert list(TABLE) == sorted(str(each) for each in ROUTES), "a line of matrix.txt for each route, and no other"
    for route, cells in TABLE.items():
        assert cells == ("public",) or (len(cells) == len(COLUMNS) and set(cells) <= WORDS), route


def test_the_table_says_which_routes_are_public() -> None:
    assert {str(each) for each in ROUTES if each.is_public} == {
        route for route, cells in TABLE.items() if cells == ("public",)
    }


@pytest.fixture(scope="module")
async def callers(pair: Pair) -> dict[str, Caller]:
    """Somebody of each built-in role, and somebody of none."""
    return {role: await pair.acme.add_user(f"a-{role}", *([role] if role != "nobody" else [])) for role in COLUMNS}


async def _prepare(pair: Pair, endpoint: Endpoint, caller: Caller, role: str) -> tuple[Caller, dict[str, UUID], Any]:
    """Whoever asks, ids of rows that are there, and a body, none of them used before."""
    if str(endpoint) == "POST /api/auth/logout":
        # Not the one of the other tests, whom they give passkeys.
        caller = await pair.acme.add_user(f"leaver-{uuid4().hex[:8]}", *([role] if role != "nobody" else []))
    if str(endpoint) in ENDS_CALLER:
        caller = await pair.acme.add_user(f"gone-{role}-{uuid4().hex[:8]}", *([role] if role != "nobody" else []))
    names = (*endpoint.parameters, *identifiers_in(endpoint.body))
    linked = names if str(endpoint) in TIED else endpoint.parameters
    ids = await _plant(
        pair.acme, tuple(name for name in names if name not in CONTROL_PLANES), linked=linked, caller=caller
    )
    ids |= {name: await CONTROL_PLANES[name](pair.acme) for name in names if name in CONTROL_PLANES}
    body = body_of(endpoint.body, ids)
    if str(endpoint) == "POST /api/teams/{team_id}/invitations":
        # Of a colleague: to add people to the organization is a permission of its own.
        body = {"email": await _colleague(pair)}
    return caller, ids, await prepare_factors(pair.acme, caller, str(endpoint)) or body


async def _colleague(pair: Pair) -> str:
    email = f"colleague-{uuid4().hex[:12]}@{pair.acme.slug}.example"
    made = await pair.acme.post("/api/users", json={"email": email, "password": PASSWORD, "roles": []})
    assert made.status_code == 201, made.text
    return email


async def _run_team(pair: Pair, caller: Caller, ids: dict[str, UUID]) -> None:
    """Let the caller own the team that the ids are about."""
    async with pair.world.database.transaction(pair.acme.context.write_scope) as transaction:
        session = transaction.session
        team_id = ids.get("team_id") or await session.scalar(
            select(TeamInvitation.team_id).where(TeamInvitation.id == ids["team_invitation_id"])
        )
        await session.execute(insert(TeamMember).values(team_id=team_id, user_id=caller.id, role="owner"))


async def _ask(
    pair: Pair, endpoint: Endpoint, caller: Caller, role: str, *, runs_team: bool = False, themselves: bool = False
) -> httpx.Response:
    caller, ids, body = await _prepare(pair, endpoint, caller, role)
    if themselves:
        assert caller.id is not None
        ids["user_id"] = caller.id
        async with pair.world.database.transaction(pair.acme.context.write_scope) as transaction:
            await transaction.session.execute(
                insert(TeamMember).values(team_id=ids["team_id"], user_id=caller.id, role="member")
            )
    if runs_team:
        await _run_team(pair, caller, ids)
    return await _call(caller, endpoint, ids, **({"json": body} if body is not None else {}))


async def _rows(pair: Pair) -> dict[str, Any]:
    """Everything; of exports only which there are, since the provisioner goes on with one that was allowed before."""
    rows = await _snapshot(pair.acme)
    return {**rows, "own exports": sorted(str(row["id"]) for row in rows["own exports"])}


def _may(answer: httpx.Response, endpoint: Endpoint) -> None:
    # One export at a time: whoever asks for another one was allowed to.
    busy = str(endpoint) == "POST /api/organization/exports" and answer.status_code == 409
    assert answer.is_success or busy, answer.text


def _may_not(answer: httpx.Response) -> None:
    assert answer.status_code == 403, answer.text
    if "/scim/" in answer.request.url.path:
        assert answer.headers["Content-Type"] == "application/scim+json"
        return
    assert answer.json()["type"] in {"/problems/permission-denied", "/problems/beyond-own-permissions"}


@pytest.mark.parametrize("endpoint", GUARDED, ids=str)
async def test_a_role_may_do_what_the_table_says(pair: Pair, callers: dict[str, Caller], endpoint: Endpoint) -> None:
    for role, word in zip(COLUMNS, TABLE[str(endpoint)], strict=True):
        caller = callers[role]
        if word == "yes":
            _may(await _ask(pair, endpoint, caller, role), endpoint)
            continue
        prepared, ids, body = await _prepare(pair, endpoint, caller, role)
        before = await _rows(pair)
        _may_not(await _call(prepared, endpoint, ids, **({"json": body} if body is not None else {})))
        assert await _rows(pair) == before, (role, "was refused, and yet something changed")
        if word == "team":
            _may(await _ask(pair, endpoint, caller, role, runs_team=True), endpoint)
        elif word == "self":
            _may(await _ask(pair, endpoint, caller, role, themselves=True), endpoint)
