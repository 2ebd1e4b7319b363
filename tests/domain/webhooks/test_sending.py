"""What endpoints are sent: signed, in order, again where they fail, and nothing of anybody else's."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from tenantry.domain.webhooks.jobs import send_webhooks, tend_webhooks
from tenantry.domain.webhooks.sending import BACKOFF, DISABLE_AFTER
from tests.domain.webhooks.support import Endpoint, box_of, let_pass, make_endpoint, send, send_beside
from tests.receiver import Received, Receiver, open_receiver
from tests.world import TenantHandle

DAY = datetime.timedelta(days=1)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with open_receiver() as opened:
        yield opened


def verified(endpoint: Endpoint, received: Received) -> Any:
    """As a receiver checks it, with the library that Standard Webhooks gives receivers."""
    return Webhook(endpoint.secret).verify(received.content, received.headers)


async def pending_in(endpoint: Endpoint) -> datetime.timedelta:
    """How long the endpoint is left in peace."""
    found = (await endpoint.read())["nextAttemptAt"]
    return datetime.datetime.fromisoformat(found) - datetime.datetime.now(datetime.UTC)


# What is sent.


async def test_an_event_is_sent_signed_so_that_the_receivers_library_takes_it(
    acme: TenantHandle, receiver: Receiver
) -> None:
    endpoint = await make_endpoint(acme, receiver, "team.created")
    team = await acme.add_team("Red")
    await send(acme)
    [received] = receiver.received
    message = verified(endpoint, received)
    assert message["type"] == "team.created"
    assert message["data"]["subject"] == team["id"]
    assert message["data"]["actor"] == f"user:{acme.id}"
    assert message["data"]["payload"] == {"owner_id": str(acme.id), "tag_ids": []}
    assert received.headers["webhook-id"] == message["data"]["id"]
    assert received.headers["content-type"] == "application/json"
    [delivery] = await endpoint.deliveries()
    assert (delivery["status"], delivery["attemptCount"], delivery["eventName"]) == ("delivered", 1, "team.created")
    detail = await endpoint.detail(delivery)
    assert detail["requestBody"].encode() == received.content
    [attempt] = detail["attempts"]
    assert (attempt["statusCode"], attempt["url"], attempt["error"]) == (204, receiver.url, None)
    assert attempt["requestHeaders"]["webhook-signature"] == received.headers["webhook-signature"]


async def test_a_message_goes_on_with_the_trace_of_the_request_that_it_tells_of(
    acme: TenantHandle, globex: TenantHandle, receiver: Receiver
) -> None:
    sent = {tenant.slug: f"00-{str(number) * 32}-b7ad6b7169203331-01" for number, tenant in ((1, acme), (2, globex))}
    for tenant in (acme, globex):
        endpoint = await make_endpoint(tenant, receiver, "team.created", path=f"/{tenant.slug}")
        headers = {"traceparent": sent[tenant.slug]}
        assert (await tenant.post("/api/teams", json={"name": "Red"}, headers=headers)).status_code == 201
        await send(tenant)
        verified(endpoint, receiver.received[-1])
    assert {message.target.rpartition("/")[2]: message.headers["traceparent"] for message in receiver.received} == sent


async def test_a_message_that_was_changed_on_the_way_is_not_taken(acme: TenantHandle, receiver: Receiver) -> None:
    endpoint = await make_endpoint(acme, receiver)
    await acme.add_team("Red")
    await send(acme)
    received = receiver.received[0]
    changed = Received(received.target, received.headers, received.content.replace(b"team", b"tame"))
    with pytest.raises(WebhookVerificationError):
        verified(endpoint, changed)


async def test_an_endpoint_is_told_of_what_it_wants_and_of_nothing_else(acme: TenantHandle, receiver: Receiver) -> None:
    await make_endpoint(acme, receiver, "team.deleted", path="/one")
    await make_endpoint(acme, receiver, "team.*", path="/all-of-teams")
    await make_endpoint(acme, receiver, "*", path="/all")
    team = await acme.add_team("Red", tags=["urgent"])
    assert (await acme.delete(f"/api/teams/{team['id']}")).status_code == 204
    await send(acme)
    got: dict[str, list[str]] = {}
    for received in receiver.received:
        got.setdefault(received.target.removeprefix("/hooks"), []).append(received.body["type"])
    assert got["/one"] == ["team.deleted"]
    assert got["/all-of-teams"] == ["team.created", "team.deleted"]
    assert [name for name in got["/all"] if not name.startswith("webhook.")] == [
        "tag.created",
        "team.created",
        "team.deleted",
    ]


async def test_nothing_is_sent_of_what_was_rolled_back(acme: TenantHandle, receiver: Receiver) -> None:
    await make_endpoint(acme, receiver, "*")
    await send(acme)
    receiver.received.clear()
    await acme.add_team("Red", slug="red")
    assert (await acme.post("/api/teams", json={"name": "Red", "slug": "red"})).status_code == 409
    await send(acme)
    assert receiver.names == ["team.created"]


async def test_a_neighbour_is_told_nothing(acme: TenantHandle, globex: TenantHandle, receiver: Receiver) -> None:
    endpoint = await make_endpoint(globex, receiver, "*", path="/globex")
    await send(globex)
    receiver.received.clear()
    await acme.add_team("Red")
    await send(acme)
    await send(globex)
    assert receiver.received == []
    assert await endpoint.deliveries(eventName="team.created") == []


async def test_while_a_secret_is_replaced_both_the_old_and_the_new_one_verify(
    acme: TenantHandle, receiver: Receiver
) -> None:
    old = await make_endpoint(acme, receiver, "team.created")
    rotated = await old.post("rotate-secret", 200, overlap=3600)
    assert rotated["secret"] != old.secret
    new = Endpoint(acme, old.id, rotated["secret"])
    await acme.add_team("Red")
    await send(acme)
    assert verified(old, receiver.received[0]) == verified(new, receiver.received[0])
    await let_pass(acme, datetime.timedelta(hours=2))
    await acme.add_team("Blue")
    await send(acme)
    verified(new, receiver.received[1])
    with pytest.raises(WebhookVerificationError):
        verified(old, receiver.received[1])


async def test_a_secret_that_is_replaced_at_once_is_worth_nothing_any_more(
    acme: TenantHandle, receiver: Receiver
) -> None:
    old = await make_endpoint(acme, receiver, "team.created")
    rotated = await old.post("rotate-secret", 200, overlap=0)
    assert rotated["previousUntil"] is None
    await acme.add_team("Red")
    await send(acme)
    verified(Endpoint(acme, old.id, rotated["secret"]), receiver.received[0])
    with pytest.raises(WebhookVerificationError):
        verified(old, receiver.received[0])


# Order, and failing.


async def test_what_fails_holds_up_what_is_behind_it_and_then_all_comes_in_order(
    acme: TenantHandle, receiver: Receiver
) -> None:
    endpoint = await make_endpoint(acme, receiver, "team.created")
    receiver.fail(500)
    for name in ("Red", "Green", "Blue"):
        await acme.add_team(name)
    await send(acme)
    assert len(receiver.received) == 1
    state = await endpoint.read()
    assert state["failingSince"] is not None
    assert datetime.timedelta(seconds=4) < await pending_in(endpoint) <= datetime.timedelta(seconds=5.5)
    receiver.succeed()
    await let_pass(acme, datetime.timedelta(seconds=6))
    assert receiver.ids == [receiver.ids[0], *(delivery["eventId"] for delivery in await endpoint.deliveries())]
    assert [delivery["attemptCount"] for delivery in await endpoint.deliveries()] == [2, 1, 1]
    state = await endpoint.read()
    assert (state["failingSince"], state["nextAttemptAt"]) == (None, None)


async def test_another_endpoint_is_not_held_up(acme: TenantHandle, receiver: Receiver) -> None:
    await make_endpoint(acme, receiver, "team.created", path="/broken")
    receiver.answer = lambda got: (500 if "broken" in got.target else 204, {}, b"")
    well = await make_endpoint(acme, receiver, "team.created", path="/well")
    await acme.add_team("Red")
    await acme.add_team("Blue")
    await send(acme)
    assert [delivery["status"] for delivery in await well.deliveries()] == ["delivered", "delivered"]


async def test_every_attempt_waits_longer_and_has_the_same_id(acme: TenantHandle, receiver: Receiver) -> None:
    endpoint = await make_endpoint(acme, receiver, "team.created")
    receiver.fail(503)
    await acme.add_team("Red")
    await send(acme)
    for pause in BACKOFF:
        waits = (await pending_in(endpoint)).total_seconds()
        assert 0.9 * pause - 5 < waits <= 1.1 * pause
        await let_pass(acme, datetime.timedelta(seconds=1.1 * pause))
    assert len(receiver.received) == len(BACKOFF) + 1
    assert len(set(receiver.ids)) == 1
    [delivery] = await endpoint.deliveries()
    assert (delivery["status"], delivery["attemptCount"]) == ("failed", len(BACKOFF) + 1)
    assert len((await endpoint.detail(delivery))["attempts"]) == len(BACKOFF) + 1
    # The next one has its turn at once, in spite of all that.
    receiver.succeed()
    await acme.add_team("Blue")
    await send(acme)
    assert [delivery["status"] for delivery in await endpoint.deliveries()] == ["failed", "delivered"]


@pytest.mark.parametrize(
    ("wish", "least", "most"),
    [("120", 110, 120), ("999999999999", 86_390, 86_400), ("Fri, 01 Jan 1999 00:00:00 GMT", 4, 6), ("soon", 4, 6)],
)
async def test_an_endpoint_that_asks_for_a_pause_gets_it_up_to_a_day(
    acme: TenantHandle, receiver: Receiver, wish: str, least: float, most: float
) -> None:
    endpoint = await make_endpoint(acme, receiver, "team.created")
    receiver.fail(429, retry_after=wish)
    await acme.add_team("Red")
    await send(acme)
    assert least < (await pending_in(endpoint)).total_seconds() <= most


async def test_a_redirect_is_a_failure_and_is_not_followed(acme: TenantHandle, receiver: Receiver) -> None:
    endpoint = await make_endpoint(acme, receiver, "team.created")
    receiver.fail(307, location=f"{receiver.url}/elsewhere")
    await acme.add_team("Red")
    await send(acme)
    assert [received.target for received in receiver.received] == ["/hooks"]
    [delivery] = await endpoint.deliveries()
    assert delivery["status"] == "pending"


async def test_an_answer_of_whatever_bytes_is_kept_as_far_as_it_can_be(acme: TenantHandle, receiver: Receiver) -> None:
    endpoint = await make_endpoint(acme, receiver, "team.created")
    receiver.answer = lambda _: (200, {"x-odd": "caf\xe9" * 1000}, b"\0\xff" + b"x" * 70_000)
    await acme.add_team("Red")
    await send(acme)
    [delivery] = await endpoint.deliveries()
    [attempt] = (await endpoint.detail(delivery))["attempts"]
    assert delivery["status"] == "delivered"
    assert attempt["responseBody"].startswith("\ufffd\ufffdxxx")
    assert len(attempt["responseBody"]) == 4096
    assert len(attempt["responseHeaders"]["x-odd"]) == 1000


async def test_an_endpoint_that_nobody_listens_at_has_an_error_in_words(acme: TenantHandle) -> None:
    async with open_receiver() as gone:
        endpoint = await make_endpoint(acme, gone, "team.created")
    await acme.add_team("Red")
    await send(acme)
    [delivery] = await endpoint.deliveries()
    [attempt] = (await endpoint.detail(delivery))["attempts"]
    assert (attempt["statusCode"], attempt["error"]) == (None, "The connection could not be made.")


# The end of an endpoint.


async def test_an_endpoint_that_has_failed_for_days_is_disabled_with_a_notice(
    acme: TenantHandle, receiver: Receiver
) -> None:
    endpoint = await make_endpoint(acme, receiver, "team.created", path="/broken")
    await make_endpoint(acme, receiver, "webhook.disabled", path="/well")
    receiver.answer = lambda got: (500 if "broken" in got.target else 204, {}, b"")
    await acme.add_team("Red")
    await send(acme)
    days = 0
    while (await endpoint.read())["isEnabled"]:
        await let_pass(acme, DAY)
        days += 1
        assert days < 30
    assert days == DISABLE_AFTER.days
    state = await endpoint.read()
    assert state["disabledReason"] == "Nothing could be delivered for 5 days."
    # The trail has it, and another endpoint is told.
    await send(acme)
    [notice] = [received for received in receiver.received if received.target == "/hooks/well"]
    assert notice.body["data"]["subject"] == str(endpoint.id)
    assert notice.body["data"]["payload"] == {"reason": "failing"}
    found = (await acme.get("/api/audit", params={"name": "webhook.disabled"})).json()["items"]
    assert [item["subject"] for item in found] == [str(endpoint.id)]
    told = (await acme.get("/api/notifications")).json()["items"]
    assert [(each["kind"], each["subject"]) for each in told] == [("webhook.disabled", str(endpoint.id))]
    # Nothing is lined up for it any more, and what was is sent when it is enabled again.
    await acme.add_team("Blue")
    assert len(await endpoint.deliveries(status="pending")) == 1
    receiver.succeed()
    receiver.received.clear()
    assert (await acme.patch(endpoint.path, json={"isEnabled": True})).json()["disabledReason"] is None
    await send(acme)
    assert [received.body["data"]["payload"] for received in receiver.received if received.target == "/hooks/broken"]
    assert await endpoint.deliveries(status="pending") == []


async def test_an_endpoint_that_is_gone_is_disabled_at_once(acme: TenantHandle, receiver: Receiver) -> None:
    endpoint = await make_endpoint(acme, receiver, "team.created")
    receiver.fail(410)
    await acme.add_team("Red")
    await send(acme)
    state = await endpoint.read()
    assert (state["isEnabled"], state["disabledReason"]) == (False, "It has answered 410 Gone.")


async def test_with_another_address_it_is_tried_at_once(acme: TenantHandle, receiver: Receiver) -> None:
    endpoint = await make_endpoint(acme, receiver, "team.created")
    receiver.answer = lambda got: (500 if got.target == "/hooks" else 204, {}, b"")
    await acme.add_team("Red")
    await send(acme)
    assert (await acme.patch(endpoint.path, json={"url": receiver.url + "/better"})).status_code == 200
    await send(acme)
    assert [received.target for received in receiver.received] == ["/hooks", "/hooks/better"]
    assert [delivery["status"] for delivery in await endpoint.deliveries()] == ["delivered"]


async def test_a_deleted_endpoint_is_sent_nothing_more(acme: TenantHandle, receiver: Receiver) -> None:
    endpoint = await make_endpoint(acme, receiver, "team.created")
    await acme.add_team("Red")
    assert (await acme.delete(endpoint.path)).status_code == 204
    await send(acme)
    assert receiver.received == []


# Of several jobs one sends.


async def test_two_workers_at_the_same_line_send_each_event_once_and_in_order(
    acme: TenantHandle, receiver: Receiver
) -> None:
    endpoint = await make_endpoint(acme, receiver, "team.created")
    for number in range(4):
        await acme.add_team(f"Team {number}")
    # As many jobs wait, which run one after the other; beside them more come, each in the middle of a request.
    others: list[asyncio.Task[int]] = []

    def answer(_: Received) -> tuple[int, dict[str, str], bytes]:
        others.append(asyncio.create_task(send_beside(acme, endpoint)))
        return 204, {}, b""

    receiver.answer = answer
    await send(acme)
    await asyncio.gather(*others)
    assert receiver.ids == [delivery["eventId"] for delivery in await endpoint.deliveries()]
    assert len(receiver.received) == 4
    assert await box_of(acme).enqueued(acme.context, send_webhooks) == []


async def test_a_line_whose_job_was_lost_is_taken_up_again(acme: TenantHandle, receiver: Receiver) -> None:
    endpoint = await make_endpoint(acme, receiver, "team.created")
    await acme.add_team("Red")
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        session = transaction.session
        for job in await box_of(acme).enqueued(acme.context, send_webhooks):
            await session.execute(text("SELECT platform.acknowledge_job(:id)"), {"id": job.id})
        await tend_webhooks(session, acme.world.app.state.vault, acme.context)
    await send(acme)
    assert [delivery["status"] for delivery in await endpoint.deliveries()] == ["delivered"]


def test_a_day_passes_between_the_first_attempt_and_the_last_more_than_once() -> None:
    assert datetime.timedelta(days=3) < datetime.timedelta(seconds=sum(BACKOFF)) < DISABLE_AFTER
    assert list(BACKOFF) == sorted(BACKOFF)
