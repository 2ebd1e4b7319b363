from __future__ import annotations

import asyncio
from uuid import uuid4

from sqlalchemy import select

from tenantry.events.models import AuditEvent
from tests.world import TenantHandle


async def test_a_tag_is_made_read_changed_and_deleted(acme: TenantHandle, globex: TenantHandle) -> None:
    made = await acme.post("/api/tags", json={"name": "Go Live!", "description": "Soon"})
    assert made.status_code == 201
    tag = made.json()
    assert tag["slug"] == "go-live"
    path = f"/api/tags/{tag['id']}"
    assert (await acme.get(path)).json() == tag
    changed = (await acme.patch(path, json={"name": "Launch"})).json()
    assert (changed["name"], changed["slug"], changed["description"]) == ("Launch", "launch", "Soon")
    assert (await acme.patch(path, json={"description": None})).json()["description"] is None
    for method, arguments in (("GET", {}), ("PATCH", {"json": {"name": "Mine"}}), ("DELETE", {})):
        assert (await globex.request(method, path, **arguments)).status_code == 404
    assert (await acme.delete(path)).status_code == 204
    assert (await acme.get(path)).status_code == 404
    assert (await acme.delete(path)).status_code == 404


async def test_an_empty_change_of_a_tag_changes_nothing(acme: TenantHandle) -> None:
    tag = (await acme.post("/api/tags", json={"name": "One"})).json()
    assert (await acme.patch(f"/api/tags/{tag['id']}", json={})).json() == tag
    assert (await acme.patch(f"/api/tags/{uuid4()}", json={})).status_code == 404


async def test_two_names_with_one_slug_are_one_tag(acme: TenantHandle, globex: TenantHandle) -> None:
    assert (await acme.post("/api/tags", json={"name": "Go Live"})).status_code == 201
    again = await acme.post("/api/tags", json={"name": "go-live"})
    assert (again.status_code, again.json()["detail"]) == (409, "There is such a tag already.")
    assert (await globex.post("/api/tags", json={"name": "Go Live"})).status_code == 201
    other = (await acme.post("/api/tags", json={"name": "Other"})).json()
    assert (await acme.patch(f"/api/tags/{other['id']}", json={"name": "GO LIVE"})).status_code == 409


async def test_a_name_of_which_nothing_can_be_kept_names_the_field(acme: TenantHandle) -> None:
    answer = await acme.post("/api/tags", json={"name": "日本語"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "name"


async def test_a_deleted_tag_comes_off_every_team(acme: TenantHandle) -> None:
    team = await acme.add_team("Red", tags=["one", "two"])
    tag = next(tag for tag in team["tags"] if tag["slug"] == "one")
    assert (await acme.delete(f"/api/tags/{tag['id']}")).status_code == 204
    assert [tag["slug"] for tag in (await acme.get(f"/api/teams/{team['id']}")).json()["tags"]] == ["two"]


async def test_a_tag_is_merged_into_another(acme: TenantHandle, globex: TenantHandle) -> None:
    """One team carries the first, one both, one the other: afterwards all three carry the other, once."""
    teams = [
        await acme.add_team(name, tags=tags)
        for name, tags in (("A", ["bug"]), ("B", ["bug", "defect"]), ("C", ["defect"]))
    ]
    theirs = await globex.add_team("A", tags=["bug", "defect"])
    tags = {tag["slug"]: tag["id"] for tag in (await acme.get("/api/tags")).json()["items"]}
    merged = await acme.post(f"/api/tags/{tags['bug']}/merge", json={"intoTagId": tags["defect"]})
    assert (merged.status_code, merged.json()["slug"]) == (200, "defect")
    for team in teams:
        carried = (await acme.get(f"/api/teams/{team['id']}")).json()["tags"]
        assert [tag["slug"] for tag in carried] == ["defect"]
    assert (await acme.get(f"/api/tags/{tags['bug']}")).status_code == 404
    assert (await globex.get(f"/api/teams/{theirs['id']}")).json() == theirs
    async with acme.world.database.transaction(acme.context.read_scope) as transaction:
        [event] = await transaction.session.scalars(select(AuditEvent).where(AuditEvent.name == "tag.merged"))
    assert (str(event.subject), event.payload) == (tags["bug"], {"into_tag_id": tags["defect"]})


async def test_a_tag_is_merged_into_another_one_that_is_there(acme: TenantHandle, globex: TenantHandle) -> None:
    tag = (await acme.post("/api/tags", json={"name": "bug"})).json()
    foreign = (await globex.post("/api/tags", json={"name": "defect"})).json()
    for into in (tag["id"], foreign["id"], str(uuid4())):
        answer = await acme.post(f"/api/tags/{tag['id']}/merge", json={"intoTagId": into})
        assert answer.status_code == 422
        assert [error["field"] for error in answer.json()["errors"]] == ["intoTagId"]
    for gone in (foreign["id"], str(uuid4())):
        assert (await acme.post(f"/api/tags/{gone}/merge", json={"intoTagId": tag["id"]})).status_code == 404
    assert (await acme.get(f"/api/tags/{tag['id']}")).json() == tag


async def test_two_tags_that_are_merged_into_each_other_at_once_are_one(acme: TenantHandle) -> None:
    team = await acme.add_team("Red", tags=["bug", "defect"])
    bug, defect = (tag["id"] for tag in team["tags"])
    answers = await asyncio.gather(
        acme.post(f"/api/tags/{bug}/merge", json={"intoTagId": defect}),
        acme.post(f"/api/tags/{defect}/merge", json={"intoTagId": bug}),
    )
    codes = sorted(answer.status_code for answer in answers)
    assert codes in ([200, 404], [200, 422])
    assert len((await acme.get(f"/api/teams/{team['id']}")).json()["tags"]) == 1
