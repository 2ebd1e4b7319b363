"""Endpoints and their deliveries over the API: what is refused, what is listed, and having things sent again."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.orm import undefer_group
from uuid_utils.compat import uuid7

from tenantry.domain.webhooks import jobs, service
from tenantry.domain.webhooks.jobs import KEPT, tend_webhooks
from tenantry.domain.webhooks.models import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from tenantry.domain.webhooks.sending import BACKOFF, secret_purpose
from tenantry.domain.webhooks.service import WebhookService
from tenantry.kernel.security import Vault
from tests.domain.webhooks.support import box_of, let_pass, make_endpoint, send, send_beside
from tests.receiver import Received, Receiver, open_receiver
from tests.world import TenantHandle

HOUR = datetime.timedelta(hours=1)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with open_receiver() as opened:
        yield opened


def problem(answer: Any, status: int, slug: str) -> Any:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["type"] == f"/problems/{slug}"
    return body


def moment(span: datetime.timedelta = datetime.timedelta(0)) -> str:
    return (datetime.datetime.now(datetime.UTC) + span).isoformat()


# Making them.


async def test_a_secret_is_shown_once_and_stored_sealed(acme: TenantHandle, receiver: Receiver) -> None:
    endpoint = await make_endpoint(acme, receiver)
    assert endpoint.secret.startswith("whsec_")
    for answer in (await acme.get(endpoint.path), await acme.get("/api/webhooks")):
        assert "whsec_" not in answer.text
        assert "secret" not in answer.text
    async with acme.world.database.transaction(acme.context.read_scope) as transaction:
        stored = await transaction.session.scalar(select(WebhookEndpoint.secret))
    assert stored is not None
    vault: Vault = acme.world.app.state.vault
    plain = vault.unseal(stored, purpose=secret_purpose(acme.tenant_id), owner=endpoint.id)
    assert plain not in stored


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://example.com/", "begins with https://"),
        ("example.com/hooks", "begins with https://"),
        ("https:///hooks", "Expected a host"),
        ("https://user:password@example.com/", "no user and no password"),
        ("https://example.com/#part", "no fragment"),
        ("https://example.com:99999/", "absolute URL"),
        ("https://10.0.0.1/", "private, local or reserved"),
        ("https://169.254.169.254/latest/meta-data", "private, local or reserved"),
        ("https://[::1]/", "private, local or reserved"),
        ("https://[::ffff:10.0.0.1]/", "private, local or reserved"),
    ],
)
async def test_an_address_that_can_never_be_reached_is_refused_and_said_why(
    acme: TenantHandle, url: str, said: str
) -> None:
    body = problem(await acme.post("/api/webhooks", json={"url": url, "events": ["*"]}), 422, "validation")
    [error] = body["errors"]
    assert (error["field"], error["source"]) == ("url", "body")
    assert said in error["message"]


async def test_without_a_word_of_the_operator_only_public_addresses_over_tls_are_taken(
    acme: TenantHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = acme.world
    monkeypatch.setattr(world.app.state, "settings", world.settings.model_copy(update={"outbound_networks": ()}))
    for url in ("http://example.com/", "https://127.0.0.1/", "http://127.0.0.1:8000/"):
        answer = await acme.post("/api/webhooks", json={"url": url, "events": ["*"]})
        [error] = problem(answer, 422, "validation")["errors"]
        assert error["field"] == "url"
    assert (await acme.post("/api/webhooks", json={"url": "https://example.com/", "events": ["*"]})).is_success


@pytest.mark.parametrize("events", [["team.founded"], ["team.*", "boat.*"], ["Team.created"], ["*.created"], []])
async def test_events_that_there_are_not_are_refused(acme: TenantHandle, events: list[str]) -> None:
    answer = await acme.post("/api/webhooks", json={"url": "https://example.com/", "events": events})
    [error] = problem(answer, 422, "validation")["errors"]
    assert error["field"].startswith("events")


async def test_an_organization_has_so_many_and_no_more(
    acme: TenantHandle, globex: TenantHandle, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MOST_WEBHOOKS", 2)
    for _ in range(2):
        await make_endpoint(acme, receiver)
    answer = await acme.post("/api/webhooks", json={"url": receiver.url, "events": ["*"]})
    assert problem(answer, 409, "too-many-webhooks")["allowed"] == 2
    await make_endpoint(globex, receiver)


async def test_the_kinds_of_events_are_listed_with_their_schemas(acme: TenantHandle) -> None:
    kinds = {item["name"]: item for item in (await acme.get("/api/webhooks/event-types")).json()}
    assert kinds["team.member_added"]["payload"]["properties"]["role"] == {"enum": ["admin", "member", "owner"]}
    assert kinds["team.member_added"]["description"] == "A user was put into a team."
    assert kinds["webhook.deleted"]["payload"]["properties"] == {}


async def test_what_is_done_to_webhooks_is_in_the_trail(acme: TenantHandle, receiver: Receiver) -> None:
    endpoint = await make_endpoint(acme, receiver)
    for changes in ({"events": ["tag.*"], "description": "Ours"}, {"isEnabled": False}, {"description": "Ours"}):
        assert (await acme.patch(endpoint.path, json=changes)).status_code == 200
    await endpoint.post("rotate-secret", 200, overlap=60)
    assert (await acme.delete(endpoint.path)).status_code == 204
    assert (await acme.get(endpoint.path)).status_code == 404
    found = (await acme.get("/api/audit", params={"subject": str(endpoint.id), "sortOrder": "asc"})).json()["items"]
    assert [(item["name"], item["payload"]) for item in found] == [
        ("webhook.created", {}),
        ("webhook.updated", {"fields": ["events", "description"]}),
        ("webhook.updated", {"fields": ["is_enabled"]}),
        ("webhook.secret_rotated", {}),
        ("webhook.deleted", {}),
    ]


async def test_who_may_not_manage_webhooks_may_not(acme: TenantHandle, receiver: Receiver) -> None:
    endpoint = await make_endpoint(acme, receiver)
    member = await acme.add_user("ann", "member")
    assert (await member.get("/api/webhooks")).status_code == 403
    assert (await member.post(f"{endpoint.path}/ping")).status_code == 403


async def test_a_neighbours_webhook_is_as_unknown_as_one_that_never_was(
    acme: TenantHandle, globex: TenantHandle, receiver: Receiver
) -> None:
    endpoint = await make_endpoint(acme, receiver)
    await acme.add_team("Red")
    [delivery] = await endpoint.deliveries()
    for path in (endpoint.path, f"{endpoint.path}/deliveries", f"{endpoint.path}/deliveries/{delivery['id']}"):
        assert (await globex.get(path)).status_code == 404
    for path in (f"{endpoint.path}/ping", f"{endpoint.path}/deliveries/{delivery['id']}/replay"):
        assert (await globex.post(path)).status_code == 404


# Testing them.


async def test_a_ping_is_sent_at_once_and_once_while_all_else_waits(acme: TenantHandle, receiver: Receiver) -> None:
    endpoint = await make_endpoint(acme, receiver, "team.created")
    receiver.fail()
    await acme.add_team("Red")
    await send(acme)
    receiver.received.clear()
    receiver.answer = lambda got: (500 if got.body["type"] == "webhook.pinged" else 204, {}, b"")
    pinged = await endpoint.post("ping")
    assert (pinged["eventName"], pinged["status"]) == ("webhook.pinged", "pending")
    await send(acme)
    assert receiver.names == ["webhook.pinged"]
    detail = await endpoint.detail(pinged)
    assert (detail["status"], detail["attempts"][0]["statusCode"]) == ("failed", 500)


async def test_pings_cost_what_waits_none_of_its_attempts(acme: TenantHandle, receiver: Receiver) -> None:
    endpoint = await make_endpoint(acme, receiver, "team.created")
    receiver.fail()
    await acme.add_team("Red")
    await send(acme)
    before = await endpoint.read()
    for _ in range(len(BACKOFF) + 1):
        await endpoint.post("ping")
        await send(acme)
    [waiting] = await endpoint.deliveries(eventName="team.created")
    assert (waiting["status"], waiting["attemptCount"]) == ("pending", 1)
    assert (await endpoint.read())["nextAttemptAt"] == before["nextAttemptAt"]


async def test_a_ping_that_comes_while_something_is_on_its_way_is_sent_all_the_same(
    acme: TenantHandle, receiver: Receiver
) -> None:
    endpoint = await make_endpoint(acme, receiver, "team.created")
    pings: list[asyncio.Task[Any]] = []

    async def ping() -> None:
        await endpoint.post("ping")
        await send_beside(acme, endpoint)

    def answer(got: Received) -> tuple[int, dict[str, str], bytes]:
        if not pings:
            pings.append(asyncio.create_task(ping()))
        return 500, {}, b""

    receiver.answer = answer
    await acme.add_team("Red")
    await send(acme)
    await asyncio.gather(*pings)
    await send(acme)
    assert receiver.names == ["team.created", "webhook.pinged"]


async def test_an_endpoint_that_wants_all_events_is_sent_a_ping_once(acme: TenantHandle, receiver: Receiver) -> None:
    endpoint = await make_endpoint(acme, receiver, "*")
    await send(acme)
    receiver.received.clear()
    await endpoint.post("ping")
    await send(acme)
    assert receiver.names == ["webhook.pinged"]


async def test_a_disabled_endpoint_is_neither_tested_nor_replayed(acme: TenantHandle, receiver: Receiver) -> None:
    endpoint = await make_endpoint(acme, receiver)
    await acme.add_team("Red")
    [delivery] = await endpoint.deliveries()
    assert (await acme.patch(endpoint.path, json={"isEnabled": False})).status_code == 200
    for path in ("ping", f"deliveries/{delivery['id']}/replay"):
        problem(await acme.post(f"{endpoint.path}/{path}"), 409, "webhook-disabled")
    answer = await acme.post(f"{endpoint.path}/replay", json={"since": moment(-HOUR)})
    problem(answer, 409, "webhook-disabled")
    await send(acme)
    assert receiver.received == []


# Sending again.


async def test_a_delivery_is_replayed_with_the_same_id_and_the_same_words(
    acme: TenantHandle, receiver: Receiver
) -> None:
    endpoint = await make_endpoint(acme, receiver, "team.created")
    await acme.add_team("Red")
    [delivery] = await endpoint.deliveries()
    problem(await acme.post(f"{endpoint.path}/deliveries/{delivery['id']}/replay"), 409, "delivery-pending")
    await send(acme)
    again = await endpoint.post(f"deliveries/{delivery['id']}/replay")
    assert (again["id"], again["status"], again["attemptCount"]) == (delivery["id"], "pending", 0)
    await send(acme)
    first, second = receiver.received
    assert first.content == second.content
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert len((await endpoint.detail(delivery))["attempts"]) == 2


async def test_a_time_is_replayed_in_order_as_far_as_nothing_of_it_arrived(
    acme: TenantHandle, receiver: Receiver
) -> None:
    # Before there was an endpoint; while it was; while it failed for good; while it was disabled.
    await acme.add_team("Before")
    endpoint = await make_endpoint(acme, receiver, "team.*")
    await acme.add_team("Told")
    await send(acme)
    assert (await acme.patch(endpoint.path, json={"isEnabled": False})).status_code == 200
    await acme.add_team("Disabled")
    await acme.post("/api/tags", json={"name": "Not wanted"})
    assert (await acme.patch(endpoint.path, json={"isEnabled": True})).status_code == 200
    created = (await acme.get("/api/audit", params={"name": "team.created", "sortOrder": "asc"})).json()["items"]
    before, told, disabled = (item["id"] for item in created)
    receiver.received.clear()
    assert await endpoint.post("replay", since=moment(-HOUR)) == {"count": 2}
    await send(acme)
    assert receiver.ids == [before, disabled]
    receiver.received.clear()
    assert await endpoint.post("replay", since=moment(-HOUR), include="all") == {"count": 3}
    await send(acme)
    assert receiver.ids == [before, told, disabled]
    assert await endpoint.post("replay", since=created[2]["occurredAt"], until=moment(HOUR), include="all") == {
        "count": 1
    }
    assert await endpoint.post("replay", since=moment(HOUR)) == {"count": 0}


async def test_a_time_without_an_offset_is_refused(acme: TenantHandle, receiver: Receiver) -> None:
    endpoint = await make_endpoint(acme, receiver)
    answer = await acme.post(f"{endpoint.path}/replay", json={"since": "2026-11-23T09:00:00"})
    [error] = problem(answer, 422, "validation")["errors"]
    assert error["field"] == "since"


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00+14:00", "2026-01-01T00:00:00Z"])
async def test_a_time_of_which_nothing_is_known_is_refused(acme: TenantHandle, receiver: Receiver, since: str) -> None:
    endpoint = await make_endpoint(acme, receiver)
    answer = await acme.post(f"{endpoint.path}/replay", json={"since": since})
    [error] = problem(answer, 422, "validation")["errors"]
    assert error["field"] == "since"


async def test_what_is_taken_from_the_middle_of_the_line_costs_the_first_nothing(
    acme: TenantHandle, receiver: Receiver
) -> None:
    endpoint = await make_endpoint(acme, receiver, "team.created")
    receiver.fail()
    await acme.add_team("Red")
    await acme.add_team("Blue")
    await send(acme)
    _, blue = await endpoint.deliveries()
    for _ in range(2):
        # Twice is once.
        assert (await endpoint.post(f"deliveries/{blue['id']}/cancel", 200))["status"] == "cancelled"
    await send(acme)
    assert len(receiver.received) == 1


async def test_what_is_taken_out_of_the_line_lets_the_next_one_pass(acme: TenantHandle, receiver: Receiver) -> None:
    endpoint = await make_endpoint(acme, receiver, "team.created")
    receiver.fail()
    await acme.add_team("Poison")
    await acme.add_team("Blue")
    await send(acme)
    receiver.received.clear()
    receiver.succeed()
    poison, blue = await endpoint.deliveries()
    cancelled = await endpoint.post(f"deliveries/{poison['id']}/cancel", 200)
    assert cancelled["status"] == "cancelled"
    await send(acme)
    assert receiver.ids == [blue["eventId"]]
    answer = await acme.post(f"{endpoint.path}/deliveries/{blue['id']}/cancel")
    assert problem(answer, 409, "delivery-finished")["deliveryStatus"] == "delivered"
    await endpoint.post(f"deliveries/{poison['id']}/replay")
    await send(acme)
    assert receiver.ids == [blue["eventId"], poison["eventId"]]


# The end of it.


async def test_a_deleted_endpoint_is_nobodys_at_once_and_gone_soon(
    acme: TenantHandle, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_BATCH", 2)
    endpoint = await make_endpoint(acme, receiver, "team.created")
    for number in range(5):
        await acme.add_team(f"Team {number}")
    await send(acme)
    [first, *_] = await endpoint.deliveries()
    assert (await acme.delete(endpoint.path)).status_code == 204
    for path in ("", "/deliveries", f"/deliveries/{first['id']}"):
        assert (await acme.get(f"{endpoint.path}{path}")).status_code == 404
    assert (await acme.delete(endpoint.path)).status_code == 404
    assert (await acme.get("/api/webhooks")).json()["total"] == 0
    await acme.add_team("Later")
    await send(acme)
    async with acme.world.database.transaction(acme.context.read_scope) as transaction:
        for model in (WebhookEndpoint, WebhookDelivery, WebhookAttempt):
            assert await transaction.session.scalar(select(func.count()).select_from(model)) == 0
    assert len(receiver.received) == 5


async def test_who_writes_while_an_endpoint_is_deleted_is_not_in_its_way(
    acme: TenantHandle, receiver: Receiver
) -> None:
    endpoint = await make_endpoint(acme, receiver, "tag.created")
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        await WebhookService(session=transaction.session).remove(endpoint.id)
        assert (await acme.post("/api/tags", json={"name": "Meanwhile"})).status_code == 201


# Every night.


async def test_old_deliveries_are_forgotten_and_pending_ones_are_not(acme: TenantHandle, receiver: Receiver) -> None:
    endpoint = await make_endpoint(acme, receiver, "team.created")
    await acme.add_team("Old")
    await send(acme)
    receiver.fail()
    await acme.add_team("Waits")
    await send(acme)
    old = datetime.datetime.now(datetime.UTC) - KEPT - HOUR
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        table: Any = WebhookDelivery.__table__
        await transaction.session.execute(table.update().values(updated_at=old))
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        assert await tend_webhooks(transaction.session, acme.world.app.state.vault, acme.context) == 1
    assert [delivery["status"] for delivery in await endpoint.deliveries()] == ["pending"]


async def test_secrets_are_sealed_anew_after_the_vaults_key_was_rotated(
    acme: TenantHandle, receiver: Receiver, tmp_path: Path
) -> None:
    endpoint = await make_endpoint(acme, receiver, "team.created")
    vault: Vault = acme.world.app.state.vault
    vault.rotate()

    async def stored() -> bytes:
        async with acme.world.database.transaction(acme.context.read_scope) as transaction:
            found = await transaction.session.scalars(select(WebhookEndpoint).options(undefer_group("secret")))
            return found.one().secret

    before = await stored()
    assert vault.needs_resealing(before)
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        await tend_webhooks(transaction.session, vault, acme.context)
    after = await stored()
    assert not vault.needs_resealing(after)
    owner = endpoint.id
    assert vault.unseal(after, purpose=secret_purpose(acme.tenant_id), owner=owner) == vault.unseal(
        before, purpose=secret_purpose(acme.tenant_id), owner=owner
    )


async def test_a_secret_that_cannot_be_read_here_is_said_so_in_the_attempt(
    acme: TenantHandle, receiver: Receiver
) -> None:
    """As of an organization that was brought from another deployment."""
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        endpoint_id = uuid7()
        elsewhere = acme.world.app.state.vault.seal(
            b"secret" * 5, purpose=secret_purpose(acme.tenant_id), owner=uuid7()
        )
        now = datetime.datetime.now(datetime.UTC)
        await transaction.session.execute(
            insert(WebhookEndpoint).values(
                id=endpoint_id,
                url=receiver.url,
                events=["team.created"],
                is_enabled=True,
                secret=elsewhere,
                created_at=now,
                updated_at=now,
            )
        )
    await acme.add_team("Red")
    await send(acme)
    assert receiver.received == []
    listed = (await acme.get(f"/api/webhooks/{endpoint_id}/deliveries")).json()["items"]
    detail = (await acme.get(f"/api/webhooks/{endpoint_id}/deliveries/{listed[0]['id']}")).json()
    assert detail["attempts"][0]["error"] == "The secret cannot be read here any more: rotate it."
    assert (await acme.post(f"/api/webhooks/{endpoint_id}/rotate-secret", json={})).status_code == 200
    await let_pass(acme, HOUR)
    assert len(receiver.received) == 1
    assert await box_of(acme).enqueued(acme.context) == []
