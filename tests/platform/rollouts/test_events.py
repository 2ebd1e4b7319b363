"""Following a rollout: what is told, to whom, and what it costs those who do not listen."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from structlog.testing import capture_logs

from tenantry.dev.process import wait_until
from tenantry.kernel.http import Edge
from tenantry.kernel.security import AUDIENCE_PLATFORM, Tokens
from tenantry.platform.operators.models import Operator
from tenantry.platform.rollouts.events import RolloutEvents
from tests.databases import Template
from tests.faults.deployment import open_deployment
from tests.platform.rollouts.listening import listen, parse
from tests.platform.rollouts.support import as_owner, cancel, ends, make_tenants, resume, start
from tests.platform.support import as_admin, eventually, open_api
from tests.tree import TenantTree
from tests.world import World


@pytest.fixture
async def api(database_addresses: Template, tmp_path: Path) -> AsyncIterator[World]:
    """An API with a pool of one connection, and streams that look often."""
    async with open_api(
        database_addresses, tmp_path / "home", database_connections=2, database_pool_timeout=5
    ) as opened:
        _hasten(opened)
        yield opened


def _hasten(api: World, *, keep_alive: float = 15.0) -> None:
    shutdown = api.app.state.rollout_events._shutdown
    api.app.state.rollout_events = RolloutEvents(shutdown, look_interval=0.01, keep_alive=keep_alive)


def _connections(api: World) -> int:
    """How many are in use."""
    pool: Any = api.database.engine.pool
    return int(pool.checkedout())


async def test_a_rollout_is_told_of_from_its_beginning_to_its_end(api: World, tenant_tree: TenantTree) -> None:
    await make_tenants(api.addresses, *(f"org-{number}" for number in range(5)))
    tenant_tree.add()
    rollout_id = await start(api.addresses, canary=1, concurrency=1)
    async with listen(api, rollout_id) as listener:
        assert listener.status == 200
        assert listener.headers["content-type"].startswith("text/event-stream")
        assert listener.headers["cache-control"] == "no-store"
        assert "content-length" not in listener.headers
        first = await listener.event()
        assert (first.kind, first.data["id"], first.data["status"]) == ("progress", str(rollout_id), "running")
        assert (first.data["total"], first.data["waves"]) == (0, [])
        await ends(api.addresses, rollout_id)
        told = await listener.rest()
        await listener.ended()
    *progress, end = told
    assert {event.kind for event in progress} <= {"progress"}
    assert end.kind == "end"
    assert (end.data["status"], end.data["done"], end.data["pending"]) == ("done", 5, 0)
    assert [(wave["wave"], wave["done"]) for wave in end.data["waves"]] == [(0, 1), (1, 4)]
    done = [event.data["done"] for event in (first, *told)]
    assert done == sorted(done)
    ids = [event.id for event in (first, *told)]
    assert all(ids)
    assert len(set(ids)) == len(ids), "something was told twice"


async def test_who_comes_back_is_told_what_is_new_and_nothing_else(api: World) -> None:
    _hasten(api, keep_alive=0.05)
    rollout_id = await start(api.addresses)
    async with listen(api, rollout_id) as listener:
        seen = await listener.event()
    async with listen(api, rollout_id, last_id=seen.id) as listener:
        for _ in range(5):
            # Looked at again and again meanwhile: comments, and nothing told.
            found = await listener.next()
            assert found is not None
            assert (found.kind, found.data) == ("", None)
        await cancel(api.addresses, rollout_id)
        [end] = await listener.rest()
        assert (end.kind, end.data["status"]) == ("end", "cancelled")
    async with listen(api, rollout_id, last_id=end.id) as listener:
        assert listener.status == 204, "a browser would come back for ever"
    async with listen(api, rollout_id, last_id=seen.id) as listener:
        assert [event.id for event in await listener.rest()] == [end.id]
    await resume(api.addresses, rollout_id)
    async with listen(api, rollout_id, last_id=end.id) as listener:
        again = await listener.event()
        assert (again.kind, again.data["status"]) == ("progress", "running")


async def test_silence_is_broken_by_comments(api: World) -> None:
    _hasten(api, keep_alive=0.1)
    rollout_id = await start(api.addresses)
    async with listen(api, rollout_id) as listener:
        opening = await listener.next()
        assert opening is not None
        assert int(opening.retry) >= 1000
        await listener.event()
        began = time.monotonic()
        for _ in range(3):
            comment = await listener.next()
            assert comment is not None
            assert comment.comment
            assert (comment.kind, comment.id, comment.data) == ("", "", None)
        assert time.monotonic() - began >= 0.25


async def test_listeners_hold_no_connection(api: World) -> None:
    """The pool has one connection; three listeners and everybody else share it."""
    rollout_id = await start(api.addresses)
    async with listen(api, rollout_id) as one, listen(api, rollout_id) as two, listen(api, rollout_id) as three:
        for listener in (one, two, three):
            await listener.event()
        for _ in range(20):
            assert (await api.operator.get(f"/platform/rollouts/{rollout_id}")).status_code == 200
        assert not any(listener.over for listener in (one, two, three))


async def test_a_listener_who_does_not_read_holds_no_connection(api: World) -> None:
    rollout_id = await start(api.addresses)
    async with listen(api, rollout_id) as listener:
        await listener.event()
        listener.reads.clear()
        await cancel(api.addresses, rollout_id)
        answers = [await api.operator.get(f"/platform/rollouts/{rollout_id}") for _ in range(5)]
        assert {answer.status_code for answer in answers} == {200}

        async def is_idle() -> bool:
            return _connections(api) == 0

        await eventually(is_idle, 5)
        listener.reads.set()
        assert [event.kind for event in await listener.rest()] == ["end"]


async def test_the_stream_stops_when_the_client_goes(api: World) -> None:
    rollout_id = await start(api.addresses)
    with capture_logs() as logs:
        for _ in range(10):
            # Wherever it is at that moment: between two looks or in the middle of one.
            async with listen(api, rollout_id) as listener:
                await listener.event()
                listener.gone.set()
                await listener.ended(1.0)
                assert not listener.over
    assert _connections(api) == 0
    assert (await api.operator.get(f"/platform/rollouts/{rollout_id}")).status_code == 200
    assert [entry for entry in logs if entry["log_level"] in {"warning", "error", "critical"}] == []


async def test_a_client_that_goes_in_the_middle_of_a_look_leaves_nothing_behind(api: World) -> None:
    rollout_id = await start(api.addresses)

    async def waits() -> bool:
        async with as_admin(api.addresses) as admin:
            return bool(
                await admin.fetchval(
                    "SELECT count(*) FROM pg_locks WHERE NOT granted"
                    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                )
            )

    async with listen(api, rollout_id) as listener:
        await listener.event()
        async with as_owner(api.addresses) as owner, owner.transaction():
            # The next look waits for this lock, with the one connection.
            await owner.execute("LOCK TABLE platform.rollout_tenant IN ACCESS EXCLUSIVE MODE")
            # Sooner than the look's own time-out for locks.
            await eventually(waits, 5)
            listener.gone.set()
            await listener.ended(1.0)
    assert _connections(api) == 0
    assert (await api.operator.get(f"/platform/rollouts/{rollout_id}")).status_code == 200


async def _operator(api: World, role: str) -> tuple[UUID, str]:
    made = uuid4()
    async with as_admin(api.addresses) as admin:
        await admin.execute(
            f"INSERT INTO platform.{Operator.__tablename__} (id, email, hashed_password, role, is_active, created_at,"
            " updated_at) VALUES ($1, $2, 'none', $3, true, now(), now())",
            made,
            f"{made.hex}@platform.example",
            role,
        )
    tokens = Tokens(api.app.state.keyring, api.settings.token_issuer)
    return made, tokens.issue(audience=AUDIENCE_PLATFORM, sub=made, ttl=600)[0]


async def test_an_operator_whose_account_is_deactivated_loses_the_stream_and_no_other_does(api: World) -> None:
    rollout_id = await start(api.addresses)
    operator_id, token = await _operator(api, "auditor")
    async with listen(api, rollout_id, token=token) as theirs, listen(api, rollout_id) as mine:
        await theirs.event()
        await mine.event()
        async with as_admin(api.addresses) as admin:
            await admin.execute("UPDATE platform.operator SET is_active = false WHERE id = $1", operator_id)
        assert await theirs.rest() == [], "neither an event nor an `end`"
        assert not mine.over
    async with listen(api, rollout_id, token=token) as again:
        assert again.status == 401


async def test_a_stream_lasts_no_longer_than_its_token(api: World) -> None:
    rollout_id = await start(api.addresses)
    operator_id, _ = await _operator(api, "auditor")
    tokens = Tokens(api.app.state.keyring, api.settings.token_issuer)
    token, _ = tokens.issue(audience=AUDIENCE_PLATFORM, sub=operator_id, ttl=2)
    async with listen(api, rollout_id, token=token) as listener:
        assert (await listener.event()).kind == "progress"
        assert await listener.rest() == []


async def test_the_stream_ends_when_the_database_goes(api: World) -> None:
    rollout_id = await start(api.addresses)
    async with listen(api, rollout_id) as listener:
        await listener.event()
        name = api.addresses.name
        admin_url = api.addresses.admin_url.replace(name, "postgres")
        async with as_admin(_at(api.addresses, admin_url)) as admin:
            await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            try:
                with capture_logs() as logs:
                    await admin.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
                    )
                    assert await listener.rest() == []
            finally:
                await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    assert "a stream of events ended for want of the database" in {entry["event"] for entry in logs}


def _at(addresses: Template, admin_url: str) -> Template:
    return Template(addresses.name, admin_url, addresses.owner_url, addresses.app_url, addresses.redis_url)


async def test_what_is_not_there_or_not_allowed_is_a_problem_and_no_stream(api: World) -> None:
    path = f"/platform/rollouts/{uuid4()}/events"
    missing = await api.operator.get(path)
    assert (missing.status_code, missing.headers["Content-Type"]) == (404, "application/problem+json")
    anonymous = await api.http.get(path)
    assert (anonymous.status_code, anonymous.headers["Content-Type"]) == (401, "application/problem+json")
    rollout_id = await start(api.addresses)
    long = await api.operator.get(f"/platform/rollouts/{rollout_id}/events", headers={"Last-Event-ID": "x" * 101})
    assert long.status_code == 422
    assert (long.json()["errors"][0]["field"], long.json()["errors"][0]["source"]) == ("Last-Event-ID", "header")


async def test_a_stream_is_logged_when_it_is_over_with_its_operator(
    api: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[dict[str, Any]] = []

    def log(values: dict[str, Any]) -> bool:
        lines.append(values)
        return True

    # By its full name the package gives the function of that name.
    monkeypatch.setattr(sys.modules[Edge.__module__], "log_access", log)
    rollout_id = await start(api.addresses)
    async with listen(api, rollout_id) as listener:
        await listener.event()
        assert lines == []
    [line] = lines
    assert (line["route"], line["status"]) == ("/platform/rollouts/{rollout_id}/events", 200)
    assert line["operator"]
    assert "tenant" not in line


def test_a_server_that_is_told_to_end_does_not_wait_for_its_listeners(
    database_addresses: Template, tmp_path: Path
) -> None:
    """Real processes: granian waits for the requests under way, of which a stream is one that nobody ends."""
    with open_deployment(database_addresses, tmp_path) as deployment:
        # A rollout that no provisioner takes up: its target is another release's.
        rollout_id = asyncio.run(_foreign_rollout(database_addresses))
        url = f"/platform/rollouts/{rollout_id}/events"
        with deployment.client.stream("GET", url, headers=deployment.operator) as answer:
            assert answer.status_code == 200
            blocks = _blocks(answer)
            assert parse(next(blocks)).retry
            assert parse(next(blocks)).kind == "progress"
            worker = deployment.workers()[0]
            began = time.monotonic()
            deployment.api.send(signal.SIGTERM)
            # To its proper end: a stream that is cut off would raise.
            assert list(blocks) == []
        assert wait_until(lambda: not Path(f"/proc/{worker}").exists(), 10)
        assert time.monotonic() - began < 5, deployment.api.log_tail(20)


def _blocks(answer: httpx.Response) -> Any:
    kept = ""
    for text in answer.iter_text():
        *whole, kept = (kept + text).split("\r\n\r\n")
        yield from whole
    assert kept == ""


async def _foreign_rollout(addresses: Template) -> UUID:
    rollout_id = await start(addresses)
    async with as_owner(addresses) as owner:
        await owner.execute("UPDATE platform.rollout SET target = '9999' WHERE id = $1", rollout_id)
    return rollout_id
