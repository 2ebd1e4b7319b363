"""Changes on a condition: of several that have seen the same, one is made; and reads that are not sent again."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tenantry.kernel.errors import ClientException
from tenantry.tenancy.tags import Condition, entity_tag
from tests.domain.machines import make_key
from tests.domain.statements import recorded_statements
from tests.platform.support import as_admin, eventually
from tests.world import Caller, TenantHandle


async def tag_of(caller: Caller, path: str) -> str:
    answer = await caller.get(path)
    assert answer.status_code == 200, answer.text
    return answer.headers["ETag"]


async def change(caller: Caller, path: str, body: Any, tag: str | None, method: str = "PATCH") -> httpx.Response:
    return await caller.request(method, path, json=body, headers={} if tag is None else {"If-Match": tag})


async def _team(acme: TenantHandle) -> tuple[str, list[Any]]:
    path = f"/api/teams/{(await acme.add_team())['id']}"
    return path, [{"name": f"Red {number}"} for number in range(8)]


async def _teams_tags(acme: TenantHandle) -> tuple[str, list[Any]]:
    """Which are rows of another table: the team's own stays as it is."""
    path = f"/api/teams/{(await acme.add_team())['id']}"
    return path, [{"tags": [f"label-{number}"]} for number in range(8)]


async def _users_roles(acme: TenantHandle) -> tuple[str, list[Any]]:
    bob = await acme.add_user("bob", "member")
    return f"/api/users/{bob.id}", [{"roles": [role]} for role in ("admin", "viewer", "owner") * 3]


async def _myself(_: TenantHandle) -> tuple[str, list[Any]]:
    return "/api/users/me", [{"name": f"Ann {number}"} for number in range(8)]


async def _preferences(acme: TenantHandle) -> tuple[str, list[Any]]:
    known = (await acme.get("/api/notifications/preferences")).json()["items"]
    return "/api/notifications/preferences", [
        {"items": [{"kind": each["kind"], "inApp": not each["inApp"]}]} for each in known * 3
    ]


@pytest.mark.parametrize("prepare", [_team, _teams_tags, _users_roles, _myself, _preferences])
async def test_of_several_changes_on_one_tag_exactly_one_is_made(acme: TenantHandle, prepare: Any) -> None:
    path, bodies = await prepare(acme)
    tag = await tag_of(acme, path)
    method = "PUT" if "preferences" in path else "PATCH"
    answers = await asyncio.gather(*(change(acme, path, body, tag, method) for body in bodies))
    assert sorted(each.status_code for each in answers) == [200] + [412] * (len(bodies) - 1)
    [made] = [each for each in answers if each.status_code == 200]
    now = await acme.get(path)
    assert now.json() == made.json()
    assert made.headers["ETag"] == now.headers["ETag"] != tag
    # One after the other, each on the tag that the answer before has had, all are made.
    tag = now.headers["ETag"]
    for body in bodies[:2]:
        answer = await change(acme, path, body, tag, method)
        assert answer.status_code == 200, answer.text
        tag = answer.headers["ETag"]


async def test_one_deletes_or_one_changes(acme: TenantHandle) -> None:
    path, [body, *_] = await _team(acme)
    tag = await tag_of(acme, path)
    headers = {"If-Match": tag}
    changed, deleted = await asyncio.gather(change(acme, path, body, tag), acme.delete(path, headers=headers))
    assert (changed.status_code, deleted.status_code) in {(200, 412), (404, 204)}


async def test_without_a_condition_the_last_one_wins(acme: TenantHandle) -> None:
    path, bodies = await _team(acme)
    answers = await asyncio.gather(*(change(acme, path, body, None) for body in bodies))
    assert {each.status_code for each in answers} == {200}
    assert not [each for each in answers if "ETag" in each.headers]


async def test_a_change_without_a_condition_waits_for_one_that_has_looked(acme: TenantHandle) -> None:
    """Also where it touches nothing of the row that the other has locked: what that one has seen must stay so."""
    path, [body, *_] = await _teams_tags(acme)
    async with as_admin(acme.world.addresses) as admin, as_admin(acme.world.addresses) as watcher:

        async def waits() -> bool:
            found = await watcher.fetchval(
                "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
                " WHERE NOT l.granted AND a.datname = current_database()"
            )
            return bool(found)

        async with admin.transaction():
            await admin.execute(f'SELECT 1 FROM "{acme.context.schema}".team FOR NO KEY UPDATE')
            waiting = asyncio.create_task(change(acme, path, body, None))
            await eventually(waits, 5)
            assert not waiting.done()
        assert (await waiting).status_code == 200


async def test_what_belongs_to_a_resource_is_in_its_tag(acme: TenantHandle) -> None:
    """Whichever table it is in: a tag of the row alone would be as it was."""
    team = await acme.add_team(tags=["urgent"])
    path = f"/api/teams/{team['id']}"
    seen = await tag_of(acme, path)
    assert (await acme.patch(f"/api/tags/{team['tags'][0]['id']}", json={"name": "calm"})).status_code == 200
    assert await tag_of(acme, path) != seen
    assert (await change(acme, path, {"name": "Blue"}, seen)).status_code == 412


async def test_who_may_not_read_has_no_tag_to_send(acme: TenantHandle) -> None:
    made = await acme.post("/api/tags", json={"name": "Red"})
    path = f"/api/tags/{made.json()['id']}"
    tag = await tag_of(acme, path)
    writer = await make_key(acme, "tags:write")
    refused = await change(writer, path, {"name": "Blue"}, tag)
    assert (refused.status_code, refused.json()["permission"]) == (403, "tags:read")
    assert (await change(writer, path, {"name": "Blue"}, None)).status_code == 200


async def test_a_condition_is_looked_at_after_permissions(acme: TenantHandle) -> None:
    """Whoever may not change it learns nothing of what it looks like."""
    path, [body, *_] = await _team(acme)
    viewer = await acme.add_user("viewer", "viewer")
    assert (await change(viewer, path, body, '"stale"')).status_code == 403


async def test_what_is_wrong_with_a_change_is_said_once_the_condition_holds(acme: TenantHandle) -> None:
    path, _ = await _team(acme)
    tag = await tag_of(acme, path)
    assert (await change(acme, path, {"name": ""}, '"stale"')).status_code == 412
    assert (await change(acme, path, {"name": ""}, tag)).status_code == 422
    assert await tag_of(acme, path) == tag


async def test_a_change_without_a_condition_costs_one_statement_for_the_lock(acme: TenantHandle) -> None:
    path, [body, *_] = await _team(acme)
    with recorded_statements(acme.world.database) as statements:
        assert (await change(acme, path, body, None)).status_code == 200
    [lock] = [each for each in statements if "FOR NO KEY UPDATE" in each]
    assert " ".join(lock.split()) == "SELECT 1 FROM team WHERE team.id = $1::UUID FOR NO KEY UPDATE"
    with recorded_statements(acme.world.database) as reading:
        assert (await acme.get(path)).status_code == 200
    assert len([each for each in reading if each != "COMMIT"]) == 3, "a tag costs a read no statement"


def test_a_tag_is_strong_and_of_what_is_sent() -> None:
    assert entity_tag(b"{}") == entity_tag(b"{}") != entity_tag(b"{ }")
    assert entity_tag(b"{}").startswith(b'"')


@pytest.mark.parametrize(
    ("lines", "strong", "weak"),
    [
        ([b'"a"'], {b'"a"'}, set()),
        ([b'W/"a"'], set(), {b'"a"'}),
        ([b'"a", W/"b" ,"c"'], {b'"a"', b'"c"'}, {b'"b"'}),
        ([b'"a"', b'"b"'], {b'"a"', b'"b"'}, set()),
        ([b', ,"a",, '], {b'"a"'}, set()),
        ([b'"with,comma"'], {b'"with,comma"'}, set()),
        ([b'""'], {b'""'}, set()),
        ([b'"caf\xe9"'], {b'"caf\xe9"'}, set()),
    ],
)
def test_tags_come_in_lists(lines: list[bytes], strong: set[bytes], weak: set[bytes]) -> None:
    found = Condition.parse("If-Match", lines)
    assert found == Condition(any=False, strong=frozenset(strong), weak=frozenset(weak))


@pytest.mark.parametrize(
    "value", [b"", b",", b"a", b'"a', b'"a" "b"', b'w/"a"', b'W/ "a"', b'*, "a"', b'"a", *', b'"with space "', b"'a'"]
)
def test_anything_else_is_refused(value: bytes) -> None:
    with pytest.raises(ClientException) as caught:
        Condition.parse("If-Match", [value])
    assert caught.value.status_code == 400


def test_no_header_is_no_condition() -> None:
    assert Condition.parse("If-Match", []) is None


def test_strong_and_weak_are_compared_as_the_rfc_says() -> None:
    """RFC 9110, section 8.8.3.2."""
    tag = b'"1"'
    for value, strongly, weakly in ((b'W/"1"', False, True), (b'W/"2"', False, False), (b'"1"', True, True)):
        condition = Condition.parse("If-Match", [value])
        assert condition is not None
        assert (condition.matches(tag), condition.matches_weakly(tag)) == (strongly, weakly)
    anything = Condition.parse("If-Match", [b" * "])
    assert anything is not None
    assert anything.matches(tag)
