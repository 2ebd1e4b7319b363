"""The inbox of notifications: reading, preferences and forgetting; each is the person's alone."""

from __future__ import annotations

import datetime
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

from tenantry.domain.notifications.jobs import forget_old_notifications
from tenantry.domain.notifications.models import Notification
from tenantry.features import NOTIFICATIONS, SCHEDULES
from tenantry.jobs.testing import JobBox
from tests.domain.test_notifications import box as box
from tests.domain.test_notifications import give, kinds, rows, told, unread
from tests.world import TenantHandle

# Reading.


async def test_notifications_are_read_unread_and_deleted_one_by_one(acme: TenantHandle) -> None:
    await give(acme, acme.id, count=3)
    first, second, third = await told(acme)
    address = f"/api/notifications/{second['id']}"
    read = await acme.patch(address, json={"isRead": True})
    assert read.status_code == 200, read.text
    assert read.json()["readAt"] is not None
    again = await acme.patch(address, json={"isRead": True})
    assert again.json()["readAt"] == read.json()["readAt"], "the time at which it was first read"
    assert (await acme.patch(address, json={})).json() == read.json()
    assert await unread(acme) == 2
    assert [item["id"] for item in await told(acme, unread="true")] == [first["id"], third["id"]]
    assert [item["id"] for item in await told(acme, unread="false")] == [second["id"]]
    assert (await acme.patch(address, json={"isRead": False})).json()["readAt"] is None
    assert await unread(acme) == 3
    assert (await acme.delete(address)).status_code == 204
    assert [item["id"] for item in await told(acme)] == [first["id"], third["id"]]
    assert (await acme.delete(address)).status_code == 404


async def test_a_list_is_filtered_by_kind_and_paged(acme: TenantHandle) -> None:
    await give(acme, acme.id, count=3)
    page = (await acme.get("/api/notifications", params={"pageSize": 2, "kind": "team.member_added"})).json()
    assert (len(page["items"]), page["total"]) == (2, 3)
    assert await told(acme, kind="user.activated") == []
    assert (await acme.get("/api/notifications", params={"kinds": "x"})).status_code == 422
    assert (await acme.get("/api/notifications", params={"orderBy": "userId"})).status_code == 422


async def test_what_arrives_while_all_is_marked_stays_unread(acme: TenantHandle) -> None:
    await give(acme, acme.id, count=2)
    seen = (await told(acme))[-1]
    await give(acme, acme.id)
    left = await acme.post("/api/notifications/read", json={"notificationId": seen["id"]})
    assert (left.status_code, left.json()) == (200, {"unread": 1})
    assert [item["id"] for item in await told(acme, unread="false")] == [item["id"] for item in (await told(acme))[:2]]


async def test_all_is_marked_up_to_a_moment(acme: TenantHandle, globex: TenantHandle) -> None:
    await give(acme, acme.id, count=2)
    await give(globex, globex.id)
    seen = (await told(acme))[0]
    left = await acme.post("/api/notifications/read", json={"moment": seen["createdAt"]})
    assert left.json() == {"unread": 1}
    left = await acme.post("/api/notifications/read", json={"moment": "2999-01-01T00:00:00+01:00"})
    assert left.json() == {"unread": 0}
    assert await unread(globex) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, ""),
        ({"moment": "2026-01-01T00:00:00Z", "notificationId": str(UUID(int=1))}, ""),
        ({"moment": "2026-01-01T00:00:00"}, "moment"),
        ({"moment": "0001-01-01T00:00:00+14:00"}, "moment"),
        ({"moment": "yesterday"}, "moment"),
        ({"notificationId": "1"}, "notificationId"),
    ],
)
async def test_up_to_what_is_one_thing_or_the_other(acme: TenantHandle, body: dict[str, str], field: str) -> None:
    refused = await acme.post("/api/notifications/read", json=body)
    assert refused.status_code == 422, refused.text
    assert refused.json()["errors"][0]["field"] == field


async def test_another_users_are_nothing_not_even_to_the_owner(acme: TenantHandle) -> None:
    ann = await acme.add_user("ann", "member")
    await give(acme, ann.id, acme.id)
    [own], [theirs] = await told(acme), await told(ann)
    for method, path, body in (
        ("PATCH", "/api/notifications/{}", {"isRead": True}),
        ("DELETE", "/api/notifications/{}", None),
        ("POST", "/api/notifications/read", {"notificationId": "{}"}),
    ):
        answers = []
        for identifier in (theirs["id"], str(uuid4())):
            sent = (
                None if body is None else {key: identifier if value == "{}" else value for key, value in body.items()}
            )
            answer = await acme.request(method, path.format(identifier), json=sent)
            answers.append((answer.status_code, answer.json()["detail"], answer.json()["errors"]))
        assert answers[0] == answers[1]
        assert answers[0][0] == (422 if method == "POST" else 404)
    assert (await told(ann), await told(acme)) == ([theirs], [own])


# Preferences.


async def test_nobody_is_told_what_they_do_not_want(acme: TenantHandle) -> None:
    ann = await acme.add_user("ann", "member")
    await give(acme, ann.id, acme.id)
    chosen = await ann.request(
        "PUT", "/api/notifications/preferences", json={"items": [{"kind": "team.member_added", "inApp": False}]}
    )
    assert chosen.status_code == 200, chosen.text
    assert chosen.json() == (await ann.get("/api/notifications/preferences")).json()
    by_kind = {item["kind"]: item for item in chosen.json()["items"]}
    assert by_kind.keys() == NOTIFICATIONS.keys()
    assert (by_kind["team.member_added"]["inApp"], by_kind["team.member_added"]["default"]) == (False, True)
    assert by_kind["team.member_removed"]["inApp"] is True
    await give(acme, ann.id, acme.id)
    assert (len(await told(ann)), len(await told(acme))) == (1, 2)
    # What is not chosen is the default's again.
    assert (await ann.request("PUT", "/api/notifications/preferences", json={"items": []})).status_code == 200
    await give(acme, ann.id)
    assert len(await told(ann)) == 2


async def test_a_kind_that_is_off_by_default_is_for_those_who_want_it(box: JobBox, acme: TenantHandle) -> None:
    ada, bea = await acme.add_user("ada", "admin"), await acme.add_user("bea", "admin")
    wanted = {"items": [{"kind": "user.created", "inApp": True}]}
    await box.drain(acme.context)
    assert (await ada.request("PUT", "/api/notifications/preferences", json=wanted)).status_code == 200
    await acme.add_user("ann", "member")
    await box.drain(acme.context)
    assert await kinds(ada) == ["user.created"]
    assert await told(bea) == await told(acme) == []


async def test_a_kind_that_is_none_is_refused_by_name(acme: TenantHandle) -> None:
    for items, field in (
        ([{"kind": "rocket.launched", "inApp": True}], "items.0.kind"),
        ([{"kind": "user.created", "inApp": True}] * 2, "items.1.kind"),
        ([{"kind": "user.created", "inApp": "yes"}], "items.0.inApp"),
    ):
        refused = await acme.request("PUT", "/api/notifications/preferences", json={"items": items})
        assert refused.status_code == 422, refused.text
        assert [error["field"] for error in refused.json()["errors"]] == [field]


# Forgetting.


async def _age(tenant: TenantHandle, position: int, *, made: int, read: int | None) -> None:
    now = datetime.datetime.now(datetime.UTC)
    async with tenant.world.database.transaction(tenant.context.write_scope) as transaction:
        await transaction.session.execute(
            update(Notification)
            .where(Notification.position == position)
            .values(
                created_at=now - datetime.timedelta(days=made),
                read_at=None if read is None else now - datetime.timedelta(days=read),
            )
        )


async def test_old_notifications_are_forgotten_the_read_ones_sooner(acme: TenantHandle, globex: TenantHandle) -> None:
    ages = {1: (91, 91), 2: (100, 89), 3: (179, None), 4: (181, None), 5: (181, 1), 6: (0, None)}
    for tenant in (acme, globex):
        await give(tenant, tenant.id, count=len(ages))
        for position, (made, read) in ages.items():
            await _age(tenant, position, made=made, read=read)
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        # In two batches.
        assert await forget_old_notifications(transaction.session, batch=2) == 3
    assert [row.position for row in await rows(acme)] == [2, 3, 6]
    assert len(await rows(globex)) == len(ages)


def test_forgetting_happens_every_night() -> None:
    [schedule] = [each for each in SCHEDULES if each.job is forget_old_notifications]
    assert (schedule.cron, schedule.jitter) == ("0 3 * * *", 7200)
