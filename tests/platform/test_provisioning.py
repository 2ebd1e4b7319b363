from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.kernel.feature import Owner, ProvisionHook
from tenantry.platform.provisioning.worker import Provisioner
from tenantry.platform.tenants.creation import TenantCreator
from tenantry.tenancy.database import Transaction
from tenantry.tenancy.scope import Scope
from tests.databases import Template
from tests.platform.support import as_admin, eventually, make_provisioner, open_api, tenant_body
from tests.world import World


@pytest.fixture
async def api(database_addresses: Template, tmp_path: Path) -> AsyncIterator[World]:
    """An API whose provisioner is the test, and which does not wait long for it."""
    async with open_api(database_addresses, tmp_path, provision_wait=0.05) as opened:
        yield opened


@asynccontextmanager
async def provisioner(api: World, *more: ProvisionHook) -> AsyncIterator[Provisioner]:
    made = make_provisioner(api.addresses, *more, poll_interval=0.05)
    try:
        yield made
    finally:
        await made.close()


async def _ask(api: World, slug: str) -> dict[str, Any]:
    """Ask for a tenant; the operation as the answer's Location shows it."""
    answer = await api.operator.post("/platform/tenants", json=tenant_body(slug))
    assert answer.status_code == 202, answer.text
    assert answer.json()["status"] == "provisioning"
    assert int(answer.headers["Retry-After"]) >= 0
    return await _operation(api, answer.headers["Location"])


async def _operation(api: World, location: str) -> dict[str, Any]:
    answer = await api.operator.get(location)
    assert answer.status_code == 200
    return answer.json()  # type: ignore[no-any-return]


async def _traces(api: World, tenant_id: str) -> Sequence[str]:
    """Roles and schemas that exist of a tenant."""
    name = f"t_{UUID(tenant_id).hex}"
    async with as_admin(api.addresses) as admin:
        return [
            row["kind"]
            for row in await admin.fetch(
                "SELECT 'role' AS kind FROM pg_roles WHERE rolname = $1"
                " UNION ALL SELECT 'schema' FROM pg_namespace WHERE nspname = $1",
                name,
            )
        ]


class Stall:
    """A hook that stops in the middle of the work, until it is let go."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, session: AsyncSession, owner: Owner) -> None:
        self.reached.set()
        await self.go_on.wait()


class Failing:
    """A hook that raises whatever it is given, as often as it is called."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.calls = 0

    async def __call__(self, session: AsyncSession, owner: Owner) -> None:
        self.calls += 1
        raise self.error


async def test_without_a_provisioner_the_answer_is_202_and_leads_to_the_operation(api: World) -> None:
    operation = await _ask(api, "later")
    assert (operation["kind"], operation["status"], operation["attempts"]) == ("create", "pending", 0)
    assert "payload" not in operation
    login = await api.http.post(
        "/api/auth/login",
        json={"tenant": "later", "email": "owner@later.example", "password": "correct horse battery"},
    )
    assert login.status_code == 401
    async with provisioner(api) as worker:
        assert await worker.work_off() == 1
        assert await worker.work_off() == 0
    done = await _operation(api, f"/platform/operations/{operation['id']}")
    assert (done["status"], done["attempts"], done["error"]) == ("done", 1, None)
    assert done["finishedAt"] is not None
    await api.log_in("later", "owner@later.example")
    assert (await api.operator.get("/platform/tenants/later")).json()["status"] == "active"


async def test_a_provisioner_that_is_cancelled_in_mid_work_leaves_nothing_and_another_finishes(api: World) -> None:
    operation = await _ask(api, "cancelled")
    stall = Stall()
    async with provisioner(api, stall) as first:
        task = asyncio.create_task(first.work_off())
        await stall.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await _traces(api, operation["tenantId"]) == []
    again = await _operation(api, f"/platform/operations/{operation['id']}")
    assert (again["status"], again["attempts"]) == ("pending", 0)
    async with provisioner(api) as second:
        assert await second.work_off() == 1
    await api.log_in("cancelled", "owner@cancelled.example")


async def test_a_provisioner_whose_connection_is_killed_in_mid_work_leaves_nothing_and_goes_on(api: World) -> None:
    operation = await _ask(api, "killed")
    stall = Stall()
    async with provisioner(api, stall) as worker:
        running = asyncio.create_task(worker.run())
        try:
            await stall.reached.wait()
            await _kill_worker(api)
            assert await _traces(api, operation["tenantId"]) == []
            stall.go_on.set()

            async def done() -> bool:
                return bool((await _operation(api, f"/platform/operations/{operation['id']}"))["status"] == "done")

            await eventually(done, 20)
        finally:
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
    assert await _traces(api, operation["tenantId"]) == ["role", "schema"]
    await api.log_in("killed", "owner@killed.example")


async def _kill_worker(api: World) -> None:
    """End the session that is in the middle of making a tenant; it has just written the owner's role."""
    async with as_admin(api.addresses) as admin:
        killed = await admin.fetchval(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'tenantry-owner'"
            " AND state = 'idle in transaction' AND query LIKE 'INSERT INTO user_role%'"
        )
    assert killed == 1


async def test_a_provisioner_that_is_stopped_when_its_connection_is_gone_stops(api: World) -> None:
    await _ask(api, "stopped")
    stall = Stall()
    async with provisioner(api, stall) as worker:
        running = asyncio.create_task(worker.run())
        await stall.reached.wait()
        await _kill_worker(api)
        running.cancel()
        # Its roll-back fails, and that error must not take the cancellation's place.
        await asyncio.wait({running}, timeout=10)
        assert running.cancelled()


async def test_all_that_was_asked_for_in_one_moment_is_worked_on_at_once(api: World) -> None:
    """One is woken, and wakes the next: nobody waits for the poll."""
    taken, both = 0, asyncio.Event()

    async def meet(step: str) -> None:
        nonlocal taken
        if step == "taken":
            taken += 1
            if taken == 2:
                both.set()
            await both.wait()

    for slug in ("first", "second"):
        await _ask(api, slug)
    slow = make_provisioner(api.addresses, poll_interval=600, listener=meet)
    running = asyncio.create_task(slow.run())
    try:
        async with asyncio.timeout(30):
            await both.wait()
    finally:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_two_provisioners_never_take_one_operation(api: World) -> None:
    for number in range(4):
        await _ask(api, f"shared-{number}")
    async with provisioner(api) as first, provisioner(api) as second:
        taken = await asyncio.gather(first.work_off(), second.work_off())
    assert sum(taken) == 4
    for number in range(4):
        await api.log_in(f"shared-{number}", f"owner@shared-{number}.example")


async def _make_due(api: World) -> None:
    async with as_admin(api.addresses) as admin:
        await admin.execute("UPDATE platform.operation SET not_before = now() WHERE status = 'pending'")


@pytest.mark.parametrize(
    "error", [ValueError("no such luck\nDETAIL: secret"), RuntimeError("a bug"), AttributeError("another")]
)
async def test_an_operation_that_fails_is_tried_again_later_and_in_the_end_given_up(
    api: World, error: Exception
) -> None:
    operation = await _ask(api, "unlucky")
    path = f"/platform/operations/{operation['id']}"
    pauses = []
    failing = Failing(error)
    async with provisioner(api, failing) as worker:
        for attempt in range(1, 6):
            assert await worker.work_off() == 1, "not due again at once"
            assert await _traces(api, operation["tenantId"]) == []
            now = await _operation(api, path)
            assert (now["attempts"], now["status"]) == (attempt, "failed" if attempt == 5 else "pending")
            assert now["error"] == f"{type(error).__name__}: {str(error).splitlines()[0]}"
            async with as_admin(api.addresses) as admin:
                row = await admin.fetchrow(
                    "SELECT payload, extract(epoch FROM not_before - updated_at)::float AS pause"
                    " FROM platform.operation"
                )
            assert row is not None
            assert (json.loads(row["payload"]) == {}) == (attempt == 5), "scrubbed once it is over, and not before"
            pauses.append(row["pause"])
            await _make_due(api)
        assert await worker.work_off() == 0
    assert failing.calls == 5
    assert [round(pause) for pause in pauses[:4]] == [1, 2, 4, 8]
    tenant = (await api.operator.get("/platform/tenants/unlucky")).json()
    assert (tenant["status"], tenant["statusReason"]) == ("failed", "provisioning failed")
    assert now["finishedAt"] is not None


async def test_one_operation_that_fails_does_not_hold_up_the_others(api: World) -> None:
    failing = Failing(RuntimeError("a bug"))
    await _ask(api, "first")

    async def only_the_first(session: AsyncSession, owner: Owner) -> None:
        if owner.email.startswith("owner@first"):
            await failing(session, owner)

    await _ask(api, "second")
    async with provisioner(api, only_the_first) as worker:
        assert await worker.work_off() == 2
    await api.log_in("second", "owner@second.example")


async def test_who_waits_for_an_operation_that_is_given_up_is_told_so(
    database_addresses: Template, tmp_path: Path
) -> None:
    async with open_api(database_addresses, tmp_path, provision_wait=20) as api:
        failing = Failing(ValueError("no"))
        asking = asyncio.create_task(api.operator.post("/platform/tenants", json=tenant_body("waiting")))
        async with provisioner(api, failing) as worker, asyncio.timeout(20):
            while failing.calls < 5:
                await _make_due(api)
                await worker.work_off()
            answer = await asking
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/provisioning-failed")
    assert "Retry-After" in answer.headers


async def test_who_waits_does_not_ask_the_database_over_and_over(api: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tried with a hundred of them: what they asked kept the provisioner from getting on."""
    creator: TenantCreator = api.app.state.tenant_creator
    begin, begun = creator._database.transaction, 0

    def counted(scope: Scope) -> AbstractAsyncContextManager[Transaction]:
        nonlocal begun
        begun += 1
        return begin(scope)

    monkeypatch.setattr(creator._database, "transaction", counted)
    made = await creator.create(
        slug="patient",
        name="Patient",
        plan="free",
        owner_email="owner@patient.example",
        owner_password=None,
        requested_by="a test",
        wait=2.5,
    )
    assert not made.done
    assert begun == 2, "one that writes it down, one at the end"


async def test_the_passwords_hash_is_gone_from_the_control_plane_once_the_tenant_is_there(api: World) -> None:
    await _ask(api, "scrubbed")
    async with as_admin(api.addresses) as admin:
        assert "argon2" in await admin.fetchval("SELECT payload::text FROM platform.operation")
        async with provisioner(api) as worker:
            await worker.work_off()
        assert await admin.fetchval("SELECT payload::text FROM platform.operation") == "{}"


async def test_a_running_provisioner_is_woken_and_does_not_wait_for_its_poll(
    database_addresses: Template, tmp_path: Path
) -> None:
    async with open_api(database_addresses, tmp_path, provision_wait=20) as api:
        slow = make_provisioner(database_addresses, poll_interval=600)
        running = asyncio.create_task(slow.run())
        try:
            async with as_admin(api.addresses) as admin:

                async def listens() -> bool:
                    return bool(
                        await admin.fetchval(
                            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%operation%'"
                            " AND datname = current_database()"
                        )
                    )

                await eventually(listens, 10)
            async with asyncio.timeout(10):
                answer = await api.operator.post("/platform/tenants", json=tenant_body("woken"))
        finally:
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
    assert answer.status_code == 201


async def test_a_tenants_role_may_do_nothing_but_use_its_own_rows(api: World) -> None:
    operation = await _ask(api, "narrow")
    async with provisioner(api) as worker:
        await worker.work_off()
    name = f"t_{UUID(operation['tenantId']).hex}"
    async with as_admin(api.addresses) as admin:
        role = await admin.fetchrow("SELECT * FROM pg_roles WHERE rolname = $1", name)
        assert role is not None
        assert not any(
            role[flag]
            for flag in ("rolsuper", "rolcreaterole", "rolcreatedb", "rolcanlogin", "rolreplication", "rolbypassrls")
        )
        assert not await admin.fetchval("SELECT has_schema_privilege($1::text, $1::text, 'CREATE')", name)
        assert not await admin.fetchval("SELECT has_schema_privilege($1::text, 'public', 'USAGE')", name)
        shared = await admin.fetch(
            "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'platform'::regnamespace AND c.relkind = 'r'"
            " AND has_table_privilege($1::text, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')",
            name,
        )
        assert shared == []
        version = await admin.fetchrow(
            "SELECT has_table_privilege($1::text, c.oid, 'SELECT') AS read,"
            " has_table_privilege($1::text, c.oid, 'INSERT, UPDATE, DELETE') AS write FROM pg_class c"
            " WHERE c.relname = 'alembic_version' AND c.relnamespace = $1::text::regnamespace",
            name,
        )
        assert version is not None
        assert (version["read"], version["write"]) == (True, False)
