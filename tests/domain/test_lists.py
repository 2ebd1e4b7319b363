from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from tests.domain.statements import recorded_statements
from tests.world import Caller, TenantHandle, World

LISTS = {
    "/api/teams": ("name", "slug", "createdAt", "updatedAt"),
    "/api/tags": ("name", "slug", "createdAt"),
    "/api/users": ("email", "name", "joinedAt", "createdAt"),
    "/api/roles": ("name", "slug"),
    "/platform/tenants": ("slug", "name", "plan", "status", "createdAt"),
    "/platform/plans": ("slug", "name"),
}


def _caller(path: str, tenant: TenantHandle) -> Caller:
    return tenant.world.operator if path.startswith("/platform") else tenant


async def _names(caller: Caller, path: str, **query: Any) -> list[str]:
    answer = await caller.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return [item["name"] for item in answer.json()["items"]]


async def test_pages_are_cut_and_counted(acme: TenantHandle, globex: TenantHandle) -> None:
    for number in range(5):
        await acme.add_team(f"Team {number}")
    await globex.add_team("Theirs")
    first = (await acme.get("/api/teams", params={"pageSize": 2})).json()
    assert (first["total"], first["page"], first["pageSize"]) == (5, 1, 2)
    assert [team["name"] for team in first["items"]] == ["Team 0", "Team 1"]
    assert await _names(acme, "/api/teams", page=3, pageSize=2) == ["Team 4"]
    beyond = (await acme.get("/api/teams", params={"page": 9, "pageSize": 2})).json()
    assert (beyond["items"], beyond["total"], beyond["page"]) == ([], 5, 9)
    farthest = await acme.get("/api/teams", params={"page": 1_000_000, "pageSize": 200})
    assert (farthest.status_code, farthest.json()["total"]) == (200, 5)
    assert (await globex.get("/api/teams")).json()["total"] == 1


@pytest.mark.parametrize("path", LISTS)
async def test_every_list_sorts_by_what_it_documents_and_refuses_the_rest(acme: TenantHandle, path: str) -> None:
    caller = _caller(path, acme)
    for order in LISTS[path]:
        for direction in ("asc", "desc"):
            answer = await caller.get(path, params={"orderBy": order, "sortOrder": direction})
            assert answer.status_code == 200, (order, direction)
            assert set(answer.json()) == {"items", "total", "page", "pageSize"}
    for query, field in (
        ({"orderBy": "hashedPassword"}, "orderBy"),
        ({"orderBy": "hashed_password"}, "orderBy"),
        ({"orderBy": ""}, "orderBy"),
        ({"sortOrder": "sideways"}, "sortOrder"),
        ({"page": "0"}, "page"),
        ({"page": "-1"}, "page"),
        ({"page": "9" * 30}, "page"),
        ({"pageSize": "0"}, "pageSize"),
        ({"pageSize": "201"}, "pageSize"),
        ({"pageSize": "many"}, "pageSize"),
        ({"search": ""}, "search"),
        ({"search": "x" * 101}, "search"),
        ({"search": "\x00"}, "search"),
        ({"pagesize": "5"}, "pagesize"),
    ):
        answer = await caller.get(path, params=query)
        assert answer.status_code == 422, query
        assert [(error["field"], error["source"]) for error in answer.json()["errors"]] == [(field, "query")], query


async def test_the_largest_page_is_allowed(acme: TenantHandle) -> None:
    assert (await acme.get("/api/teams", params={"pageSize": 200})).json()["pageSize"] == 200


async def test_search_finds_a_part_in_any_case_and_takes_wildcards_literally(acme: TenantHandle) -> None:
    names = ["100% Sure", "1000 Sure", "snake_case", "snakeXcase", "back\\slash", "plain"]
    for name in names:
        await acme.add_team(name)
    assert await _names(acme, "/api/teams", search="100%") == ["100% Sure"]
    assert await _names(acme, "/api/teams", search="e_c") == ["snake_case"]
    assert await _names(acme, "/api/teams", search="k\\s") == ["back\\slash"]
    assert await _names(acme, "/api/teams", search="PLAI") == ["plain"]
    assert await _names(acme, "/api/teams", search="'; DROP TABLE team; --") == []
    found = (await acme.get("/api/teams", params={"search": "sure", "pageSize": 1})).json()
    assert (len(found["items"]), found["total"]) == (1, 2)


async def test_search_of_members_takes_wildcards_literally_too(acme: TenantHandle) -> None:
    team = await acme.add_team("Red")
    for name in ("a_b", "axb"):
        user = await acme.add_user(name)
        await acme.post(f"/api/teams/{team['id']}/members", json={"userId": str(user.id)})
    answer = (await acme.get(f"/api/teams/{team['id']}/members", params={"search": "A_B"})).json()
    assert [member["email"] for member in answer["items"]] == [f"a_b@{acme.slug}.example"]
    assert answer["total"] == 1


async def test_rows_that_sort_alike_are_on_one_page_each(acme: TenantHandle) -> None:
    for _ in range(6):
        await acme.add_team("Same")
    seen: list[str] = []
    for page in (1, 2, 3):
        answer = await acme.get("/api/teams", params={"page": page, "pageSize": 2, "orderBy": "name"})
        seen += [team["id"] for team in answer.json()["items"]]
    assert len(set(seen)) == 6


async def test_names_sort_and_reverse(acme: TenantHandle) -> None:
    for name in ("b", "a", "c"):
        await acme.add_team(name)
    assert await _names(acme, "/api/teams") == ["a", "b", "c"]
    assert await _names(acme, "/api/teams", sortOrder="desc") == ["c", "b", "a"]
    assert await _names(acme, "/api/teams", orderBy="createdAt") == ["b", "a", "c"]


async def _fill(world: World, tenant: TenantHandle, number: int) -> None:
    """`number` users with two roles each, in one team, as many teams with two tags, and as many roles.

    All of them have asked the owner into the first team, where they asked somebody new, and into a team each.
    """
    async with world.database.transaction(tenant.context.write_scope) as transaction:
        connection = transaction.connection
        users = [uuid4() for _ in range(number)]
        await connection.fetch(
            "INSERT INTO user_account"
            " (id, email, is_active, is_superuser, is_verified, joined_at, created_at, updated_at)"
            " SELECT id, id || '@filled.example', true, false, false, now(), now(), now() FROM unnest($1::uuid[]) id",
            users,
        )
        await connection.fetch(
            "INSERT INTO user_role (id, user_id, role_id, created_at, updated_at)"
            " SELECT gen_random_uuid(), u, r.id, now(), now() FROM unnest($1::uuid[]) u,"
            " role r WHERE r.slug IN ('member', 'viewer')",
            users,
        )
        await connection.fetch(
            "INSERT INTO tag (id, slug, name, created_at, updated_at)"
            " SELECT gen_random_uuid(), 't' || n, 't' || n, now(), now() FROM generate_series(1, $1) n",
            number,
        )
        await connection.fetch(
            "INSERT INTO team (id, slug, name, is_active, created_at, updated_at)"
            " SELECT gen_random_uuid(), 's' || n, 's' || n, true, now(), now() FROM generate_series(1, $1) n",
            number,
        )
        await connection.fetch(
            "INSERT INTO team_tag (team_id, tag_id) SELECT t.id, g.id FROM team t JOIN tag g"
            " ON g.slug IN ('t' || substr(t.slug, 2), 't1')"
        )
        await connection.fetch(
            "INSERT INTO team_member (id, team_id, user_id, role, created_at, updated_at)"
            " SELECT gen_random_uuid(), t.id, u.id, 'member', now(), now() FROM team t, user_account u"
            " WHERE t.slug = 's1'"
        )
        await connection.fetch(
            "INSERT INTO role (id, slug, name, is_builtin, permissions, created_at, updated_at)"
            " SELECT gen_random_uuid(), 'r' || n, 'r' || n, false, '{tags:read}', now(), now()"
            " FROM generate_series(1, $1) n",
            number,
        )
        await connection.fetch(
            "INSERT INTO team_invitation (id, team_id, email, role, role_id, invited_by_id, status, expires_at,"
            " created_at, updated_at) SELECT gen_random_uuid(), t.id, u.id || '@new.example', 'member', r.id, u.id,"
            " 'pending', now() + interval '1 day', now(), now() FROM team t,"
            " unnest($1::uuid[]) WITH ORDINALITY u(id, n) JOIN role r ON r.slug = 'r' || u.n WHERE t.slug = 's1'",
            users,
        )
        await connection.fetch(
            "INSERT INTO team_invitation (id, team_id, email, user_id, role, invited_by_id, status, expires_at,"
            " created_at, updated_at) SELECT gen_random_uuid(), t.id, 'owner@filled.example', $2, 'member', u.id,"
            " 'pending', now() + interval '1 day', now(), now() FROM unnest($1::uuid[]) WITH ORDINALITY u(id, n)"
            " JOIN team t ON t.slug = 's' || u.n",
            users,
            tenant.id,
        )


@pytest.mark.parametrize(
    "path",
    [
        "/api/teams",
        "/api/users",
        "/api/users?role=member",
        "/api/tags",
        "/api/roles",
        "/api/teams/{team}/members",
        "/api/teams/{team}/invitations",
        "/api/team-invitations",
        "/api/users/me",
    ],
)
async def test_a_list_of_thirty_takes_as_many_statements_as_one_of_three(
    world: World, acme: TenantHandle, globex: TenantHandle, path: str
) -> None:
    counts = []
    for tenant, number in ((acme, 3), (globex, 30)):
        await _fill(world, tenant, number)
        team = (await tenant.get("/api/teams", params={"search": "s1", "pageSize": 1})).json()["items"][0]
        address = path.format(team=team["id"])
        assert (await tenant.get(address)).status_code == 200
        with recorded_statements(world.database) as statements:
            answer = await tenant.get(address)
        assert answer.status_code == 200
        if "items" in answer.json():
            assert len(answer.json()["items"]) >= number
        counts.append(len(statements))
    assert counts[0] == counts[1]
    assert counts[0] <= 8, "the transaction's ends, who is asking, the rows, their number and what belongs to them"


async def test_a_list_of_thirty_tenants_takes_as_many_statements_as_one_of_three(world: World) -> None:
    await asyncio.gather(*(world.create_tenant("many") for _ in range(3)))
    counts = []
    for size in (1, 3):
        with recorded_statements(world.database) as statements:
            answer = await world.operator.get("/platform/tenants", params={"pageSize": size})
        assert len(answer.json()["items"]) == size
        counts.append(len(statements))
    assert counts[0] == counts[1]
