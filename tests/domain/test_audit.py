"""The organization's audit trail: what is in it, that it cannot be changed, and that a change would show."""

from __future__ import annotations

import asyncio
import datetime
import json
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import insert, select
from uuid_utils.compat import uuid7

from tenantry.domain.audit.chain import Chain, canonical, seal_next, verify_chain
from tenantry.domain.audit.jobs import seal_audit
from tenantry.domain.audit.models import AuditSeal, SealedEvent
from tenantry.domain.audit.service import TrailFilter, export_lines
from tenantry.events.models import AuditEvent
from tenantry.features import SCHEDULES
from tenantry.jobs.testing import JobBox
from tenantry.tenancy.context import ScopeTimes, control_scope
from tests.isolation.estate import run_as
from tests.world import PASSWORD, Caller, TenantHandle

TABLES = ("audit_event", "audit_seal", "audit_sealed_event")


async def trail(caller: Caller, **params: Any) -> list[dict[str, Any]]:
    found = await caller.get("/api/audit", params={"pageSize": 200, **params})
    assert found.status_code == 200, found.text
    return found.json()["items"]  # type: ignore[no-any-return]


async def names(caller: Caller, **params: Any) -> list[str]:
    """The oldest first."""
    return [item["name"] for item in reversed(await trail(caller, **params))]


async def seal(tenant: TenantHandle, **arguments: Any) -> int:
    async with tenant.world.database.transaction(tenant.context.write_scope) as transaction:
        return await seal_audit(transaction.session, **arguments)  # type: ignore[no-any-return]


async def verify(tenant: TenantHandle) -> Chain:
    def open_session() -> Any:
        return _Opened(tenant)

    return await verify_chain(open_session)


class _Opened:
    def __init__(self, tenant: TenantHandle) -> None:
        self._transaction = tenant.world.database.transaction(tenant.context.read_scope)

    async def __aenter__(self) -> Any:
        return (await self._transaction.__aenter__()).session

    async def __aexit__(self, *error: Any) -> Any:
        return await self._transaction.__aexit__(*error)


async def as_owner(tenant: TenantHandle, statement: str, **names: object) -> None:
    """What nobody but the database's owner can do."""
    await run_as(
        tenant.world.addresses.owner_url,
        f'SET search_path TO "{tenant.context.schema}"; {statement.format(**names)}',
    )


async def write_event(tenant: TenantHandle, event_id: UUID) -> None:
    async with tenant.world.database.transaction(tenant.context.write_scope) as transaction:
        await transaction.session.execute(
            insert(AuditEvent).values(
                id=event_id,
                name="tag.created",
                actor="system",
                subject=uuid7(),
                payload={},
                occurred_at=datetime.datetime.now(datetime.UTC),
            )
        )


def earlier(**span: float) -> UUID:
    """An id as it was made so long ago."""
    moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(**span)
    return UUID(int=(int(moment.timestamp() * 1000) << 80) | (uuid7().int & ((1 << 80) - 1)))


async def rows(tenant: TenantHandle, model: type[Any]) -> list[Any]:
    async with tenant.world.database.transaction(tenant.context.read_scope) as transaction:
        return list(await transaction.session.scalars(select(model).order_by(model.id)))


# What is in it.


async def test_what_people_do_is_in_the_trail_with_whose_doing_it_was(acme: TenantHandle) -> None:
    ann = await acme.add_user("ann", "member")
    team = await acme.add_team("Red", tags=["urgent"])
    members = f"/api/teams/{team['id']}/members"
    assert (await acme.post(members, json={"userId": str(ann.id)})).status_code == 201
    assert (await acme.patch(f"{members}/{ann.id}", json={"role": "admin"})).status_code == 200
    assert (await ann.delete(f"{members}/{ann.id}")).status_code == 204
    renamed = {"name": "Blue", "tags": ["urgent", "calm"]}
    assert (await acme.patch(f"/api/teams/{team['id']}", json=renamed)).status_code == 200
    assert (await acme.delete(f"/api/teams/{team['id']}")).status_code == 204
    assert await names(acme, subject=team["id"]) == [
        "team.created",
        "team.member_added",
        "team.member_role_changed",
        "team.member_removed",
        "team.updated",
        "team.deleted",
    ]
    by_name = {item["name"]: item for item in await trail(acme, subject=team["id"])}
    assert by_name["team.created"]["payload"] == {"owner_id": str(acme.id), "tag_ids": [team["tags"][0]["id"]]}
    assert by_name["team.member_added"]["payload"] == {"user_id": str(ann.id), "role": "member"}
    assert by_name["team.member_role_changed"]["payload"] == {"user_id": str(ann.id), "role": "admin"}
    assert by_name["team.updated"]["payload"] == {"fields": ["name", "tags"]}
    assert by_name["team.member_removed"]["actor"] == f"user:{ann.id}"
    assert by_name["team.deleted"]["actor"] == f"user:{acme.id}"
    # The tags that the team's making made, one and one.
    assert await names(acme, name="tag.created") == ["tag.created"] * 2


async def test_accounts_and_sessions_are_in_the_trail(acme: TenantHandle) -> None:
    ann = await acme.add_user("ann", "member")
    own = f"/api/users/{ann.id}"
    assert (await ann.patch("/api/users/me", json={"name": "Ann"})).status_code == 200
    assert (await acme.patch(own, json={"roles": ["admin"]})).status_code == 200
    assert (await acme.patch(own, json={"isActive": False})).status_code == 200
    assert (await acme.patch(own, json={"isActive": True})).status_code == 200
    assert await names(acme, subject=ann.id) == [
        "user.created",
        "user.updated",
        "user.roles_changed",
        "user.deactivated",
        "user.activated",
    ]
    again = await acme.world.log_in(acme.slug, f"ann@{acme.slug}.example")
    spent = again.refresh_token
    refreshed = await acme.http.post("/api/auth/refresh", json={"refreshToken": spent})
    assert refreshed.status_code == 200
    assert (await acme.http.post("/api/auth/refresh", json={"refreshToken": spent})).status_code == 401
    assert (await (last := await acme.world.log_in(acme.slug, acme.owner_email)).post("/api/auth/logout")).is_success
    assert (await last.get("/api/users/me")).status_code == 401
    opened = await trail(acme, name="session.opened", actor=f"user:{ann.id}")
    assert [item["payload"] for item in opened] == [{"user_id": str(ann.id)}] * 2
    [revoked] = await trail(acme, name="session.revoked")
    assert (revoked["subject"], revoked["actor"]) == (opened[0]["subject"], "system")
    [ended] = await trail(acme, name="session.ended")
    assert (ended["actor"], ended["payload"]) == (f"user:{acme.id}", {"user_id": str(acme.id)})


async def test_a_change_that_changes_nothing_is_not_in_the_trail(acme: TenantHandle) -> None:
    team = await acme.add_team("Red", tags=["urgent"])
    tag = team["tags"][0]["id"]
    before = await names(acme)
    assert (await acme.patch(f"/api/teams/{team['id']}", json={"name": "Red", "tags": ["Urgent"]})).is_success
    assert (await acme.patch(f"/api/tags/{tag}", json={"name": "urgent"})).is_success
    assert (await acme.patch(f"/api/users/{acme.id}", json={"roles": ["owner"], "isActive": True})).is_success
    assert (await acme.patch("/api/users/me", json={})).is_success
    assert await names(acme) == before


async def test_the_trail_holds_no_address_and_no_name(acme: TenantHandle) -> None:
    made = await acme.post(
        "/api/users",
        json={"email": "zebra@zoo.example", "password": PASSWORD, "name": "Zebra Zoo", "roles": ["member"]},
    )
    assert made.status_code == 201
    assert (await acme.patch(f"/api/users/{made.json()['id']}", json={"name": "Zebra Other"})).is_success
    await acme.add_team("Zebra Team", description="zebra", tags=["zebra"])
    exported = await acme.get("/api/audit/export")
    assert "team.created" in exported.text
    assert "zebra" not in exported.text.lower()


async def test_the_trail_is_filtered_by_all_that_it_holds(acme: TenantHandle, globex: TenantHandle) -> None:
    await acme.post("/api/tags", json={"name": "First"})
    [first] = await trail(acme, name="tag.created")
    await acme.post("/api/tags", json={"name": "Second"})
    await globex.post("/api/tags", json={"name": "Theirs"})
    second, also_first = await trail(acme, name="tag.created")
    assert also_first == first
    assert await trail(acme, name="tag.created", subject=first["subject"]) == [first]
    assert await trail(acme, name="tag.created", to=second["occurredAt"]) == [first]
    assert await trail(acme, **{"name": "tag.created", "from": second["occurredAt"]}) == [second]
    assert await trail(acme, actor=f"user:{globex.id}") == []
    assert await trail(acme, name="tag.created", orderBy="occurredAt", sortOrder="asc") == [first, second]
    assert await trail(acme, search="tag.c") == [second, first]


@pytest.mark.parametrize("path", ["/api/audit", "/api/audit/export"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("from", "yesterday"),
        ("to", "2026-11-23T09:00:00"),
        ("from", "0001-01-01T00:00:00+14:00"),
        ("subject", "ann"),
        ("name", ""),
    ],
)
async def test_a_filter_that_is_none_is_named(acme: TenantHandle, path: str, field: str, value: str) -> None:
    answer = await acme.get(path, params={field: value})
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize("path", ["/api/audit", "/api/audit/export"])
async def test_only_owners_and_administrators_read_the_trail(acme: TenantHandle, path: str) -> None:
    for role, status in (("admin", 200), ("member", 403), ("viewer", 403)):
        caller = await acme.add_user(role, role)
        assert (await caller.get(path)).status_code == status, role


async def test_the_export_is_the_whole_trail_in_lines_the_oldest_first(
    acme: TenantHandle, globex: TenantHandle
) -> None:
    await globex.post("/api/tags", json={"name": "Theirs"})
    for number in range(3):
        await acme.post("/api/tags", json={"name": f"Tag {number}"})
    answer = await acme.get("/api/audit/export")
    assert answer.headers["content-type"].partition(";")[0] == "application/x-ndjson"
    assert answer.headers["cache-control"] == "no-store"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines == list(reversed(await trail(acme)))
    filtered = await acme.get("/api/audit/export", params={"name": "tag.created", "subject": lines[-1]["subject"]})
    assert [json.loads(line) for line in filtered.text.splitlines()] == lines[-1:]
    nothing = await acme.get("/api/audit/export", params={"name": "tag.eaten"})
    assert (nothing.status_code, nothing.text) == (200, "")


async def test_an_export_holds_no_connection_while_it_is_sent(acme: TenantHandle) -> None:
    """And ends, although something happens meanwhile, at what had happened when it began."""
    for number in range(4):
        await acme.post("/api/tags", json={"name": f"Tag {number}"})
    pool: Any = acme.world.database.engine.pool
    pieces = []
    before = pool.checkedout()
    async for piece in export_lines(
        acme.world.database, acme.context.read_scope, TrailFilter(name="tag.created"), chunk=2
    ):
        pieces.append(piece)
        assert pool.checkedout() == before
        await acme.post("/api/tags", json={"name": f"Meanwhile {len(pieces)}"})
    assert [piece.count(b"\n") for piece in pieces] == [2, 2]


# That it cannot be changed.


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("statement", ["UPDATE {} SET id = id", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
async def test_the_tenants_role_cannot_change_what_has_happened(acme: TenantHandle, table: str, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with acme.world.database.transaction(acme.context.write_scope) as transaction:
            await transaction.connection.fetch(statement.format(table))


# That a change would show.


def test_the_encoding_is_the_same_whatever_the_order() -> None:
    assert canonical({"b": [1, None, True], "a": "ä\n"}) == '{"a":"ä\\n","b":[1,null,true]}'.encode()


async def test_sealing_chains_what_has_happened_since(acme: TenantHandle, globex: TenantHandle) -> None:
    events = len(await rows(acme, AuditEvent))
    assert await verify(acme) == Chain(0, 0, events, None, None)
    assert await seal(acme) == events
    assert await seal(acme) == 0
    await acme.post("/api/tags", json={"name": "Blue"})
    assert await seal(acme) == 1
    first, second = await rows(acme, AuditSeal)
    assert (first.sequence, first.previous_hash, first.event_count) == (1, bytes(32), events)
    assert (second.sequence, second.previous_hash, second.event_count) == (2, first.hash, 1)
    assert await verify(acme) == Chain(2, events + 1, 0, second.hash, None)
    # Each tenant's chain is its own.
    assert (await verify(globex)).seals == 0


async def test_a_long_backlog_is_sealed_in_batches_and_none_is_left_out(acme: TenantHandle) -> None:
    for days in (40, 30, 20, 10, 5):
        await write_event(acme, earlier(days=days))
    events = len(await rows(acme, AuditEvent))
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        sealed = [await seal_next(transaction.session, batch=2) for _ in range(events)]
    assert sum(sealed) == events
    chain = await verify(acme)
    assert (chain.events, chain.unsealed, chain.broken) == (events, 0, None)
    assert chain.seals == (events + 1) // 2


async def test_the_job_seals_all_of_a_backlog_that_is_more_than_one_run(acme: TenantHandle) -> None:
    for _ in range(25):
        await write_event(acme, uuid7())
    events = len(await rows(acme, AuditEvent))
    control = control_scope(ScopeTimes(), read_only=False)
    box = JobBox(acme.world.database, control, (seal_audit,))
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        await seal_audit.enqueue(transaction.session, batch=1)
    # Twenty seals in a run, and then another run.
    assert await box.drain(acme.context) == [20, events - 20]
    chain = await verify(acme)
    assert (chain.seals, chain.events, chain.unsealed, chain.broken) == (events, events, 0, None)


def test_every_organization_is_sealed_by_the_clock() -> None:
    [schedule] = [each for each in SCHEDULES if each.job is seal_audit]
    now = datetime.datetime.now(datetime.UTC)
    waits = schedule.next_after(now, tenant_id=uuid7()) - now
    assert waits <= datetime.timedelta(minutes=10)


async def test_an_event_that_is_committed_late_is_in_the_next_seal(acme: TenantHandle) -> None:
    """Its id is older than those that are sealed: ids are made before the commit."""
    late = earlier(minutes=10)
    await seal(acme)
    await write_event(acme, late)
    assert await seal(acme) == 1
    sealed = {row.id: row.seal_id for row in await rows(acme, SealedEvent)}
    _, second = await rows(acme, AuditSeal)
    assert sealed[late] == second.id
    # And it does not keep what comes next from being sealed.
    await acme.post("/api/tags", json={"name": "Blue"})
    assert await seal(acme) == 1
    assert (await verify(acme)).broken is None


async def test_an_id_of_the_future_does_not_end_the_sealing(acme: TenantHandle) -> None:
    await write_event(acme, earlier(days=-30))
    await seal(acme)
    await acme.post("/api/tags", json={"name": "Blue"})
    assert await seal(acme) == 1
    assert (await verify(acme)).broken is None


async def test_of_two_that_seal_at_once_one_does(acme: TenantHandle) -> None:
    events = len(await rows(acme, AuditEvent))
    assert sorted(await asyncio.gather(*(seal(acme) for _ in range(3)))) == [0, 0, events]
    assert (await verify(acme)).broken is None


async def test_an_event_that_was_written_with_an_old_id_is_found(acme: TenantHandle) -> None:
    await seal(acme)
    forged = earlier(days=3)
    await write_event(acme, forged)
    assert await seal(acme) == 0
    broken = (await verify(acme)).broken
    assert broken is not None
    assert (broken.seal, broken.event) == (None, forged)
    assert "in no seal" in broken.reason


TAMPERING = {
    "UPDATE audit_event SET actor = 'user:x' WHERE id = '{event}'": (2, True, "not what was sealed"),
    "UPDATE audit_event SET payload = '{{\"a\": 1}}' WHERE id = '{event}'": (2, True, "not what was sealed"),
    "UPDATE audit_event SET occurred_at = occurred_at - interval '1 microsecond' WHERE id = '{event}'": (
        2,
        True,
        "not what was sealed",
    ),
    "DELETE FROM audit_sealed_event WHERE id = '{event}'; DELETE FROM audit_event WHERE id = '{event}'": (
        2,
        False,
        "over 1 events",
    ),
    "UPDATE audit_sealed_event SET digest = decode(repeat('00', 32), 'hex') WHERE id = '{event}'": (
        2,
        True,
        "not what was sealed",
    ),
    "UPDATE audit_seal SET hash = decode(repeat('00', 32), 'hex') WHERE sequence = 2": (2, False, "its hash"),
    "UPDATE audit_seal SET sealed_at = sealed_at - interval '1 day' WHERE sequence = 2": (2, False, "its hash"),
    "UPDATE audit_seal SET previous_hash = decode(repeat('11', 32), 'hex') WHERE sequence = 2": (
        2,
        False,
        "does not follow",
    ),
    "DELETE FROM audit_sealed_event WHERE id = '{event}'; DELETE FROM audit_seal WHERE sequence = 2": (
        2,
        False,
        "missing",
    ),
}


@pytest.mark.parametrize("statement", TAMPERING)
async def test_whatever_the_owner_changes_is_found_and_named(acme: TenantHandle, statement: str) -> None:
    await seal(acme)
    for name in ("Blue", "Red"):
        await acme.post("/api/tags", json={"name": name})
        await seal(acme)
    event = (await trail(acme, name="tag.created"))[1]["id"]
    good = (await rows(acme, AuditSeal))[0]
    await as_owner(acme, statement, event=event)
    number, named, reason = TAMPERING[statement]
    chain = await verify(acme)
    assert chain.broken is not None
    assert (chain.broken.seal, chain.broken.event) == (number, UUID(event) if named else None)
    assert reason in chain.broken.reason
    assert (chain.seals, chain.hash) == (1, good.hash)
