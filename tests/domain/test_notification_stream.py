"""Following one's notifications: what is told, to whom, for how long, and what it costs those who do not listen."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from litestar.exceptions import LitestarException
from structlog.testing import capture_logs

from tenantry.dev.process import Account, GuardedProcess, server_environment, wait_until
from tenantry.domain.notifications.listeners import Listeners, Seat, wake
from tenantry.domain.notifications.stream import NotificationStreams
from tenantry.features import JOBS
from tenantry.jobs.testing import JobBox
from tenantry.kernel.http import edge
from tenantry.kernel.security import AUDIENCE_TENANT, Tokens
from tenantry.tenancy.context import control_scope
from tenantry.tenancy.redis import tenant_key
from tenantry.tenancy.wiring import scope_times
from tests.databases import Template
from tests.domain.test_notifications import give, told
from tests.faults.deployment import open_deployment
from tests.jobs.support import job_redis_url
from tests.platform.rollouts.listening import Listener, listen_at, parse, scope_at
from tests.platform.support import eventually, open_api
from tests.world import PASSWORD, Caller, TenantHandle, World, environment_for

PATH = "/api/notifications/stream"
LONG = 60.0
"""Seconds: what comes sooner, a hint has brought."""


def _streams(api: World, **times: float) -> None:
    made = api.app.state.notification_streams
    api.app.state.notification_streams = NotificationStreams(
        made._listeners, **{"lifetime": made._lifetime, "keep_alive": LONG, "look_interval": LONG, **times}
    )


def _listeners(api: World) -> Listeners:
    return api.app.state.notification_streams._listeners  # type: ignore[no-any-return]


def _connections(api: World) -> int:
    """How many are in use."""
    pool: Any = api.database.engine.pool
    return int(pool.checkedout())


@pytest.fixture
async def api(world: World) -> AsyncIterator[World]:
    """Another process of the API, with a pool of one connection, whose streams look when they are woken alone."""
    async with open_api(
        world.addresses,
        world.settings.home,
        database_connections=2,
        database_pool_timeout=5,
        stream_limit_per_user=3,
        stream_limit=5,
    ) as opened:
        _streams(opened)
        yield opened


def follow(
    api: World, caller: Caller, *, token: str = "", last_id: str | None = None
) -> AbstractAsyncContextManager[Listener]:
    return listen_at(edge(api.app), PATH, token=token or caller.access_token, last_id=last_id)


async def heard(api: World, tenant: TenantHandle) -> None:
    """Wait until hints of the tenant reach the process."""

    async def hears() -> bool:
        return _listeners(api).hears(tenant.tenant_id)

    await eventually(hears, 10)


async def hint(api: World, tenant: TenantHandle, *users: UUID | None) -> None:
    await wake(api.app.state.redis, tenant_id=tenant.tenant_id, user_ids=[user for user in users if user])


async def emptied(api: World) -> None:
    async def is_empty() -> bool:
        return len(_listeners(api)) == 0

    await eventually(is_empty, 5)


async def test_who_listens_is_told_at_once(api: World, acme: TenantHandle) -> None:
    """From the request through the outbox and the job to the stream."""
    ann = await acme.add_user("ann", "member")
    team = await acme.add_team("Red")
    await give(acme, ann.id)
    box = JobBox(
        acme.world.database,
        control_scope(scope_times(acme.world.settings), read_only=False),
        JOBS,
        redis=acme.world.app.state.redis,
    )
    async with follow(api, ann) as listener:
        assert listener.status == 200
        assert listener.headers["content-type"].startswith("text/event-stream")
        assert listener.headers["cache-control"] == "no-store"
        assert "content-length" not in listener.headers
        opening = await listener.next()
        assert opening is not None
        assert int(opening.retry) >= 1000
        ready = await listener.event()
        assert (ready.kind, ready.id, ready.data) == ("ready", "1", {"unread": 1})
        await heard(api, acme)
        added = await acme.post(f"/api/teams/{team['id']}/members", json={"userId": str(ann.id)})
        assert added.status_code == 201
        await box.drain(acme.context)
        event = await listener.event()
        assert (event.kind, event.id) == ("notification", "2")
    assert event.data == (await told(ann))[-1]


async def test_nobody_hears_of_what_others_are_told(api: World, acme: TenantHandle, globex: TenantHandle) -> None:
    ann, bob = await acme.add_user("ann", "member"), await acme.add_user("bob", "member")
    async with follow(api, ann) as hers, follow(api, bob) as his, follow(api, globex) as theirs:
        for listener in (hers, his, theirs):
            assert (await listener.event()).data == {"unread": 0}
        await heard(api, acme)
        await heard(api, globex)
        [event_id] = await give(acme, ann.id)
        # Everybody is woken, in both organizations, and looks.
        await hint(api, acme)
        await hint(api, globex)
        assert (await hers.event()).data["eventId"] == str(event_id)
        [second] = await give(acme, bob.id)
        await hint(api, acme, bob.id)
        found = await his.event()
        assert (found.id, found.data["eventId"]) == ("1", str(second))
        [third] = await give(globex, globex.id)
        await hint(api, globex, globex.id)
        assert (await theirs.event()).data["eventId"] == str(third)
        assert hers.body == his.body == theirs.body == b""


async def test_who_comes_back_is_told_what_was_missed_and_nothing_twice(api: World, acme: TenantHandle) -> None:
    async with follow(api, acme) as listener:
        ready = await listener.event()
        assert ready.id == "0"
    missed = await give(acme, acme.id, count=120)
    async with follow(api, acme, last_id=ready.id) as listener:
        # More than one look reads.
        events = [await listener.event() for _ in missed]
        assert [event.data["eventId"] for event in events] == [str(each) for each in missed]
        assert [event.id for event in events] == [str(number) for number in range(1, 121)]
    async with follow(api, acme, last_id="119") as listener:
        assert (await listener.event()).id == "120"
        assert listener.body == b""
    async with follow(api, acme, last_id="120") as listener:
        await heard(api, acme)
        [last] = await give(acme, acme.id)
        await hint(api, acme, acme.id)
        assert (await listener.event()).data["eventId"] == str(last)


async def test_an_id_that_we_have_not_given_yet_begins_anew(api: World, acme: TenantHandle) -> None:
    """The organization was restored from a copy that is older than what the client has seen."""
    await give(acme, acme.id, count=2)
    async with follow(api, acme, last_id="7") as listener:
        ready = await listener.event()
        assert (ready.kind, ready.id, ready.data) == ("ready", "2", {"unread": 2})


@pytest.mark.parametrize("last_id", ["x", "-1", "1" * 19, "1.5", "0x1"])
async def test_an_id_that_is_none_is_refused(api: World, acme: TenantHandle, last_id: str) -> None:
    refused = await Caller(api.http, acme.access_token).get(PATH, headers={"Last-Event-ID": last_id})
    assert refused.status_code == 422
    assert (refused.json()["errors"][0]["field"], refused.json()["errors"][0]["source"]) == ("Last-Event-ID", "header")


async def test_nothing_is_lost_where_no_hint_comes(world: World, acme: TenantHandle) -> None:
    """Redis is away: it is looked for."""
    with capture_logs() as logs:
        async with open_api(world.addresses, world.settings.home, redis_url="redis://127.0.0.1:1/0") as api:
            _streams(api, look_interval=0.05)
            async with follow(api, acme) as listener:
                assert (await listener.event()).kind == "ready"
                [event_id] = await give(acme, acme.id)
                assert (await listener.event()).data["eventId"] == str(event_id)
                await give(acme, acme.id)
                assert (await listener.event()).id == "2"
    assert [entry["event"] for entry in logs].count("notifications are looked for, and not waited for") == 1


async def test_silence_is_broken_by_comments(api: World, acme: TenantHandle) -> None:
    _streams(api, keep_alive=0.1)
    async with follow(api, acme) as listener:
        await listener.event()
        began = time.monotonic()
        for _ in range(3):
            comment = await listener.next()
            assert comment is not None
            assert (comment.comment, comment.kind, comment.id, comment.data) == ("still there", "", "", None)
        assert time.monotonic() - began >= 0.25


async def test_a_hint_that_comes_while_nobody_waits_is_not_lost() -> None:
    seat = Seat()
    seat.wake()
    began = time.monotonic()
    await seat.woken(LONG)
    assert time.monotonic() - began < LONG / 2
    await seat.woken(0.01)
    assert not seat.is_over


async def test_a_hint_that_cannot_be_read_wakes_everybody(api: World, acme: TenantHandle) -> None:
    """A later release may say more in it."""
    async with follow(api, acme) as listener:
        await listener.event()
        await heard(api, acme)
        await give(acme, acme.id)
        await api.app.state.redis.publish(tenant_key(acme.tenant_id, "notifications"), b'{"users": []}')
        assert (await listener.event()).id == "1"


# What it costs.


async def test_all_streams_share_one_connection_to_redis_and_none_to_the_database(
    api: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    redis: Any = api.app.state.redis
    channels = [tenant_key(tenant.tenant_id, "notifications") for tenant in (acme, globex)]
    async with follow(api, acme) as one, follow(api, acme) as two, follow(api, globex) as three:
        for listener in (one, two, three):
            await listener.event()
        await heard(api, acme)
        await heard(api, globex)
        assert len(redis.connection_pool._in_use_connections) == 1
        assert [count for _, count in await redis.pubsub_numsub(*channels)] == [1, 1]
        for _ in range(20):
            assert (await Caller(api.http, acme.access_token).get("/api/users/me")).status_code == 200
        assert _connections(api) == 0
    await emptied(api)

    async def is_left() -> bool:
        return [count for _, count in await redis.pubsub_numsub(*channels)] == [0, 0]

    await eventually(is_left, 5)


async def test_a_listener_who_does_not_read_holds_no_connection(api: World, acme: TenantHandle) -> None:
    async with follow(api, acme) as listener:
        await listener.event()
        await heard(api, acme)
        listener.reads.clear()
        await give(acme, acme.id, count=3)
        await hint(api, acme, acme.id)
        for _ in range(5):
            assert (await Caller(api.http, acme.access_token).get("/api/users/me")).status_code == 200

        async def is_idle() -> bool:
            return _connections(api) == 0

        await eventually(is_idle, 5)
        listener.reads.set()
        assert [(await listener.event()).id for _ in range(3)] == ["1", "2", "3"]


async def test_the_stream_stops_when_the_client_goes(api: World, acme: TenantHandle) -> None:
    with capture_logs() as logs:
        for number in range(10):
            # Wherever it is at that moment: waiting, or in the middle of a look.
            async with follow(api, acme) as listener:
                await listener.event()
                if number % 2:
                    await hint(api, acme)
                listener.gone.set()
                await listener.ended(1.0)
                assert not listener.over
    await emptied(api)
    assert _connections(api) == 0
    assert (await Caller(api.http, acme.access_token).get("/api/users/me")).status_code == 200
    assert [entry for entry in logs if entry["log_level"] in {"warning", "error", "critical"}] == []


async def test_a_client_that_goes_before_the_answer_begins_leaves_its_seat(api: World, acme: TenantHandle) -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        assert len(_listeners(api)) == 1
        raise ConnectionResetError

    served: Any = edge(api.app)
    with contextlib.suppress(LitestarException):
        await served(scope_at(PATH, token=acme.access_token), receive, send)
    await emptied(api)
    assert _connections(api) == 0


async def test_a_user_and_a_process_have_so_many_streams_and_no_more(
    api: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    ann = await acme.add_user("ann", "member")
    async with follow(api, ann) as one, follow(api, ann), follow(api, ann):
        refused = await Caller(api.http, ann.access_token).get(PATH)
        assert (refused.status_code, refused.headers["Content-Type"]) == (429, "application/problem+json")
        assert int(refused.headers["Retry-After"]) > 0
        async with follow(api, acme) as mine, follow(api, globex):
            full = await Caller(api.http, acme.access_token).get(PATH)
            assert full.status_code == 429
            assert full.json()["detail"] != refused.json()["detail"]
            mine.gone.set()
            await mine.ended()
            # There is room again, but not for ann.
            assert (await Caller(api.http, ann.access_token).get(PATH)).status_code == 429
            async with follow(api, acme) as again:
                assert again.status == 200
        one.gone.set()
        await one.ended()
        async with follow(api, ann) as again:
            assert again.status == 200
    await emptied(api)


async def test_one_organization_does_not_take_all_streams_of_a_process(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    async with open_api(world.addresses, world.settings.home, stream_limit=5, stream_limit_per_tenant=2) as api:
        ann = await acme.add_user("ann", "member")
        async with follow(api, acme), follow(api, ann):
            assert (await Caller(api.http, ann.access_token).get(PATH)).status_code == 429
            async with follow(api, globex) as theirs:
                assert theirs.status == 200


async def test_an_announcement_to_many_leaves_the_pool_to_others(world: World, acme: TenantHandle) -> None:
    """Thirty streams look at once: with a connection each, requests would wait, and some looks give up."""
    async with open_api(
        world.addresses,
        world.settings.home,
        database_connections=6,
        stream_limit_per_user=30,
    ) as api:
        _streams(api)
        most = 0
        # Also where time is up: an application whose streams go on would not end.
        async with AsyncExitStack() as streams, asyncio.timeout(60):
            listeners = [await streams.enter_async_context(follow(api, acme)) for _ in range(30)]
            for listener in listeners:
                await listener.event()
            await heard(api, acme)
            await give(acme, acme.id)
            await hint(api, acme)
            reading = asyncio.gather(*(listener.event() for listener in listeners))
            while not reading.done():
                most = max(most, _connections(api))
                await asyncio.sleep(0)
            assert {event.id for event in await reading} == {"1"}
        assert 0 < most < 5


# How long it lasts.


async def test_a_session_that_has_ended_is_told_nothing_more(api: World, acme: TenantHandle) -> None:
    ann = await acme.add_user("ann", "member")
    other = await acme.world.log_in(acme.slug, f"ann@{acme.slug}.example")
    async with follow(api, ann) as listener, follow(api, other) as second:
        await listener.event()
        await second.event()
        await heard(api, acme)
        assert (await ann.post("/api/auth/logout")).status_code == 204
        await give(acme, ann.id)
        await hint(api, acme, ann.id)
        assert await listener.rest() == []
        assert (await second.event()).id == "1"
    assert (await Caller(api.http, ann.access_token).get(PATH)).status_code == 401


async def test_the_stream_of_a_deactivated_account_ends_by_the_next_sign_of_life(
    api: World, acme: TenantHandle
) -> None:
    _streams(api, keep_alive=0.1)
    ann = await acme.add_user("ann", "member")
    async with follow(api, ann) as listener:
        await listener.event()
        assert (await acme.patch(f"/api/users/{ann.id}", json={"isActive": False})).status_code == 200
        assert await listener.rest() == []


async def test_a_stream_lasts_no_longer_than_its_token(api: World, acme: TenantHandle) -> None:
    tokens = Tokens(api.app.state.keyring, api.settings.token_issuer)
    claims = tokens.verify(acme.access_token, AUDIENCE_TENANT)
    token, _ = tokens.issue(audience=AUDIENCE_TENANT, sub=claims.sub, sid=claims.sid, tid=claims.tid, ttl=2)
    async with follow(api, acme, token=token) as listener:
        assert (await listener.event()).kind == "ready"
        assert await listener.rest() == []


async def test_a_stream_lasts_no_longer_than_it_may(api: World, acme: TenantHandle) -> None:
    _streams(api, lifetime=0.2)
    async with follow(api, acme) as listener:
        assert [event.kind for event in await listener.rest()] == ["ready"]


async def test_a_suspended_organizations_streams_end_and_no_others_do(
    api: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    async with follow(api, acme) as mine, follow(api, globex) as theirs:
        await mine.event()
        await theirs.event()
        suspended = await api.operator.post(f"/platform/tenants/{acme.slug}/suspend", json={})
        assert suspended.status_code == 200, suspended.text
        began = time.monotonic()
        assert await mine.rest() == []
        assert time.monotonic() - began < 5
        assert not theirs.over
    assert (await Caller(api.http, acme.access_token).get(PATH)).status_code == 403


async def test_the_stream_ends_with_the_process(world: World, acme: TenantHandle) -> None:
    async with open_api(world.addresses, world.settings.home) as api:
        _streams(api)
        async with follow(api, acme) as listener:
            await listener.event()
            _listeners(api)._shutdown.begin()
            assert await listener.rest() == []
            await listener.ended()


def _blocks(answer: httpx.Response) -> Iterator[str]:
    kept = ""
    for piece in answer.iter_text():
        *whole, kept = (kept + piece).split("\r\n\r\n")
        yield from whole
    assert kept == ""


def test_over_sockets_a_worker_tells_a_browser_and_the_server_does_not_wait_for_it(
    database_addresses: Template, tmp_path: Path
) -> None:
    """Real processes: a server, a worker, and a client that would listen for ever."""
    redis_url = job_redis_url()
    environment = environment_for(database_addresses, tmp_path, redis_url=redis_url)
    worker = GuardedProcess(
        [sys.executable, "-m", "tenantry.cli", "worker"],
        log=tmp_path / "worker.log",
        account=Account("direct"),
        stop_signal=signal.SIGTERM,
        environment=server_environment() | environment | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")},
    )
    with open_deployment(database_addresses, tmp_path, redis_url=redis_url) as deployment, worker:
        session = deployment.create_tenant("acme")
        body = {"email": "ann@people.example", "password": PASSWORD, "roles": ["admin"]}
        made = deployment.client.post("/api/users", json=body, headers=session.headers)
        assert made.status_code == 201, made.text
        login = {"tenant": "acme", "email": "ann@people.example", "password": PASSWORD}
        token = deployment.client.post("/api/auth/login", json=login).json()["accessToken"]
        headers = {"Authorization": f"Bearer {token}"}
        with deployment.client.stream("GET", PATH, headers=headers) as answer:
            assert answer.status_code == 200
            blocks = _blocks(answer)
            assert parse(next(blocks)).retry
            assert parse(next(blocks)).kind == "ready"
            team = deployment.client.post("/api/teams", json={"name": "Red"}, headers=session.headers).json()
            member = {"userId": made.json()["id"]}
            added = deployment.client.post(f"/api/teams/{team['id']}/members", json=member, headers=session.headers)
            assert added.status_code == 201, added.text
            found = next(event for event in map(parse, blocks) if event.kind)
            assert found.kind == "notification", worker.log_tail(20)
            assert found.data["kind"] == "team.member_added"
            process = deployment.workers()[0]
            began = time.monotonic()
            deployment.api.send(signal.SIGTERM)
            # To its proper end: a stream that is cut off would raise.
            assert [each for each in blocks if parse(each).kind] == []
        assert wait_until(lambda: not Path(f"/proc/{process}").exists(), 10)
        assert time.monotonic() - began < 5, deployment.api.log_tail(20)
