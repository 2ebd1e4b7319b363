"""Keys by which a POST is done once: beside one another, after failures, for whom they are, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import httpx
import pytest
from litestar import Litestar, Request, Response, Router, post
from litestar.di import Provide
from litestar.params import FromPath
from litestar.types import ASGIApp
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.idempotency.jobs import forget_idempotency_keys
from tenantry.domain.idempotency.models import IdempotentRequest
from tenantry.domain.idempotency.service import IdempotencyKeys, Replay, parse_key, replay_answer
from tenantry.domain.identity.principal import load_user_principal
from tenantry.domain.tags.service import TagService
from tenantry.features import JOBS, SCHEDULES
from tenantry.jobs.testing import JobBox
from tenantry.kernel.errors import ClientException
from tenantry.kernel.http import edge
from tenantry.kernel.http.plugin import HttpPlugin
from tenantry.kernel.security import Tokens, Vault
from tenantry.kernel.security.vault import MAX_SEALABLE
from tenantry.kernel.service import Injected
from tenantry.tenancy.context import ScopeTimes, control_scope
from tenantry.tenancy.declared import begin_declared, declare_routes
from tenantry.tenancy.guards import requires_active_user
from tenantry.tenancy.request import HostNames, TenantMiddleware, provide_session, tenant_request
from tests.domain.machines import make_key
from tests.domain.statements import recorded_statements
from tests.platform.support import as_admin, eventually, open_api
from tests.world import PASSWORD, Caller, TenantHandle, World


def keyed(key: str | None = None) -> dict[str, str]:
    return {"Idempotency-Key": key or str(uuid4())}


async def tags_of(tenant: TenantHandle) -> list[str]:
    answer = await tenant.get("/api/tags", params={"pageSize": 200})
    assert answer.status_code == 200, answer.text
    return [each["name"] for each in answer.json()["items"]]


async def records_of(tenant: TenantHandle) -> int:
    async with tenant.world.database.transaction(tenant.context.read_scope) as transaction:
        return await transaction.session.scalar(select(func.count()).select_from(IdempotentRequest)) or 0


def is_replay(answer: httpx.Response) -> bool:
    return bool(answer.headers.get("Idempotent-Replayed") == "true")


def problem_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"]


@asynccontextmanager
async def stuck(tenant: TenantHandle, table: str, *, waiting: int = 1) -> AsyncIterator[Any]:
    """While the block runs, nothing can be written into a table of the tenant; the value waits until somebody tries."""
    async with as_admin(tenant.world.addresses) as admin, as_admin(tenant.world.addresses) as watcher:

        async def somebody_waits() -> bool:
            found = await watcher.fetchval(
                "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
                " WHERE d.datname = current_database() AND NOT l.granted"
            )
            return bool(found >= waiting)

        async with admin.transaction():
            await admin.execute(f'LOCK TABLE "{tenant.context.schema}"."{table}" IN EXCLUSIVE MODE')
            yield lambda: eventually(somebody_waits, 5)


# Beside one another.


async def test_while_the_first_is_being_done_the_second_is_told_to_come_back(acme: TenantHandle) -> None:
    headers = keyed()
    async with stuck(acme, "tag") as somebody_waits:
        first = asyncio.create_task(acme.post("/api/tags", json={"name": "Red"}, headers=headers))
        await somebody_waits()
        second = await acme.post("/api/tags", json={"name": "Red"}, headers=headers)
        assert problem_of(second) == (409, "/problems/idempotency-key-in-use")
        assert int(second.headers["Retry-After"]) >= 1
    done = await first
    assert done.status_code == 201, done.text
    again = await acme.post("/api/tags", json={"name": "Red"}, headers=headers)
    assert (again.status_code, again.content, is_replay(again)) == (201, done.content, True)


async def test_of_many_at_once_one_is_done(acme: TenantHandle) -> None:
    """More than the pool has connections, in several waves."""
    headers = keyed()
    answers: list[httpx.Response] = []
    for _ in range(3):
        answers += await asyncio.gather(
            *(acme.post("/api/teams", json={"name": "Red"}, headers=headers) for _ in range(20))
        )
    assert {each.status_code for each in answers} <= {201, 409}
    assert sum(each.status_code == 201 and not is_replay(each) for each in answers) == 1
    assert len({each.content for each in answers if each.status_code == 201}) == 1
    teams = (await acme.get("/api/teams")).json()
    assert teams["total"] == 1
    assert await records_of(acme) == 1


async def test_a_request_that_lets_go_of_its_connection_is_done_once_as_well(acme: TenantHandle) -> None:
    """While a password is hashed there is no transaction, and so no lock: it is the next one that finds out."""
    body = {"email": f"ann@{acme.slug}.example", "password": PASSWORD, "roles": ["member"]}
    headers = keyed()
    answers = await asyncio.gather(*(acme.post("/api/users", json=body, headers=headers) for _ in range(6)))
    assert {each.status_code for each in answers} <= {201, 409}
    assert all(each.json()["type"] == "/problems/idempotency-key-in-use" for each in answers if each.status_code == 409)
    assert sum(each.status_code == 201 and not is_replay(each) for each in answers) == 1
    again = await acme.post("/api/users", json=body, headers=headers)
    assert (again.status_code, is_replay(again)) == (201, True)
    assert await records_of(acme) == 1


async def test_two_organizations_with_one_key_do_not_wait_for_each_other(
    acme: TenantHandle, globex: TenantHandle
) -> None:
    headers = keyed()
    async with stuck(acme, "tag") as somebody_waits:
        first = asyncio.create_task(acme.post("/api/tags", json={"name": "Red"}, headers=headers))
        await somebody_waits()
        theirs = await globex.post("/api/tags", json={"name": "Red"}, headers=headers)
        assert (theirs.status_code, is_replay(theirs)) == (201, False)
    assert (await first).status_code == 201
    assert (await first).json()["id"] != theirs.json()["id"]


# Failures.


async def test_what_was_refused_is_tried_again(acme: TenantHandle) -> None:
    headers = keyed()
    await acme.post("/api/tags", json={"name": "Red"})
    refused = await acme.post("/api/tags", json={"name": "Red"}, headers=headers)
    assert refused.status_code == 409
    malformed = await acme.post("/api/tags", json={"name": ""}, headers=headers)
    assert malformed.status_code == 422
    assert await records_of(acme) == 0
    [tag] = (await acme.get("/api/tags")).json()["items"]
    assert (await acme.delete(f"/api/tags/{tag['id']}")).status_code == 204
    done = await acme.post("/api/tags", json={"name": "Red"}, headers=headers)
    assert (done.status_code, is_replay(done)) == (201, False)


async def test_what_broke_down_is_tried_again(acme: TenantHandle) -> None:
    """After it had written: what was written is gone, and no answer is kept."""
    headers = keyed()
    make = TagService.make

    async def make_and_break(self: TagService, **fields: Any) -> None:
        await make(self, **fields)
        raise RuntimeError("after the write")

    with patch.object(TagService, "make", make_and_break):
        broken = await acme.post("/api/tags", json={"name": "Red"}, headers=headers)
    assert broken.status_code == 500
    assert (await tags_of(acme), await records_of(acme)) == ([], 0)
    done = await acme.post("/api/tags", json={"name": "Red"}, headers=headers)
    assert (done.status_code, is_replay(done)) == (201, False)


async def test_an_answer_that_cannot_be_kept_is_not_given_and_nothing_is_done(acme: TenantHandle) -> None:
    headers = keyed()

    def broken(*_: Any, **__: Any) -> bytes:
        raise OSError(5, "no vault here")

    with patch.object(Vault, "seal", broken):
        refused = await acme.post("/api/tags", json={"name": "Red"}, headers=headers)
    assert refused.status_code == 503
    assert (await tags_of(acme), await records_of(acme)) == ([], 0)
    assert (await acme.post("/api/tags", json={"name": "Red"}, headers=headers)).status_code == 201


# Whose they are.


async def test_a_key_is_one_callers_and_one_routes(acme: TenantHandle) -> None:
    bob = await acme.add_user("bob", "admin")
    machine = await make_key(acme, "tags:write")
    headers = keyed("the-same-for-all")
    made = [
        await acme.post("/api/tags", json={"name": "Red"}, headers=headers),
        await bob.post("/api/tags", json={"name": "Blue"}, headers=headers),
        await machine.post("/api/tags", json={"name": "Green"}, headers=headers),
        await acme.post("/api/teams", json={"name": "Red"}, headers=headers),
    ]
    assert [(each.status_code, is_replay(each)) for each in made] == [(201, False)] * 4
    assert await tags_of(acme) == ["Blue", "Green", "Red"]
    # The same person with another session is the same caller: a token may have run out in between.
    again = await acme.world.log_in(acme.slug, acme.owner_email)
    replayed = await again.post("/api/tags", json={"name": "Red"}, headers=headers)
    assert (replayed.content, is_replay(replayed)) == (made[0].content, True)


async def test_who_may_not_do_it_any_more_is_not_told_the_answer(acme: TenantHandle) -> None:
    bob = await acme.add_user("bob", "member")
    headers = keyed()
    assert (await bob.post("/api/tags", json={"name": "Red"}, headers=headers)).status_code == 201
    assert (await acme.patch(f"/api/users/{bob.id}", json={"roles": ["viewer"]})).status_code == 200
    assert (await bob.post("/api/tags", json={"name": "Red"}, headers=headers)).status_code == 403


async def test_a_secret_that_is_shown_once_is_shown_to_who_repeats_and_lies_sealed(acme: TenantHandle) -> None:
    headers = keyed()
    body = {"name": "Report", "scopes": ["roles:read"]}
    first = await acme.post("/api/api-keys", json=body, headers=headers)
    key = first.json()["key"]
    assert (await acme.post("/api/api-keys", json=body, headers=headers)).json()["key"] == key
    async with acme.world.database.transaction(acme.context.read_scope) as transaction:
        [row] = await transaction.session.scalars(select(IdempotentRequest))
        sealed, answer = repr(row.answer), row.answer
    assert key not in sealed
    assert key[-64:] not in sealed
    assert headers["Idempotency-Key"].encode() not in row.digest + answer
    # Beside another row it does not open: whoever can write here could otherwise have somebody else's answer shown.
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.session.execute(update(IdempotentRequest).values(id=uuid4()))
    assert (await acme.post("/api/api-keys", json=body, headers=headers)).status_code == 500


# For how long.


async def _expire(tenant: TenantHandle) -> None:
    async with tenant.world.database.transaction(tenant.context.write_scope) as transaction:
        await transaction.session.execute(
            update(IdempotentRequest).values(expires_at=func.now() - func.make_interval(0, 0, 0, 0, 0, 0, 1))
        )


async def test_a_key_is_known_for_a_day_and_then_a_new_one(acme: TenantHandle) -> None:
    headers = keyed()
    await acme.post("/api/tags", json={"name": "Red"}, headers=headers)
    async with acme.world.database.transaction(acme.context.read_scope) as transaction:
        kept = await transaction.session.scalar(select(IdempotentRequest.expires_at - func.now()))
    assert kept is not None
    assert 86_000 < kept.total_seconds() <= 86_400
    await _expire(acme)
    done = await acme.post("/api/tags", json={"name": "Blue"}, headers=headers)
    assert (done.status_code, is_replay(done)) == (201, False)
    assert await records_of(acme) == 1


async def test_how_long_is_a_setting(world: World) -> None:
    async with open_api(world.addresses, world.settings.home, idempotency_ttl=60) as api:
        tenant = await world.create_tenant("shortly")
        caller = Caller(api.http, tenant.access_token)
        await api.app.state.registry.refresh()
        assert (await caller.post("/api/tags", json={"name": "Red"}, headers=keyed())).status_code == 201
    async with world.database.transaction(tenant.context.read_scope) as transaction:
        kept = await transaction.session.scalar(select(IdempotentRequest.expires_at - func.now()))
    assert kept is not None
    assert 50 < kept.total_seconds() <= 60


async def test_expired_answers_are_forgotten_by_a_schedule(acme: TenantHandle, globex: TenantHandle) -> None:
    for tenant in (acme, globex):
        for name in ("Red", "Blue", "Green"):
            await tenant.post("/api/tags", json={"name": name}, headers=keyed())
    await _expire(acme)
    await acme.post("/api/tags", json={"name": "Grey"}, headers=keyed())
    assert any(schedule.job is forget_idempotency_keys for schedule in SCHEDULES)
    box = JobBox(acme.world.database, control_scope(ScopeTimes(), read_only=False), JOBS)
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        await forget_idempotency_keys.enqueue(transaction.session, batch=2)
    await box.drain(acme.context)
    assert (await records_of(acme), await records_of(globex)) == (1, 3)


# How they are written.


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ([b'"8e03978e-40d5-43e8-bc93-6894a57f9324"'], b"8e03978e-40d5-43e8-bc93-6894a57f9324"),
        ([b"8e03978e-40d5-43e8-bc93-6894a57f9324"], b"8e03978e-40d5-43e8-bc93-6894a57f9324"),
        ([b' "with spaces, \\"marks\\" and \\\\" '], b'with spaces, "marks" and \\'),
        ([b'"' + b"x" * 255 + b'"'], b"x" * 255),
    ],
)
def test_a_key_is_a_text_in_quotation_marks_or_a_word(lines: list[bytes], key: bytes) -> None:
    assert parse_key(lines) == key


MALFORMED = [
    b"",
    b'""',
    b'"open',
    b"two words",
    b"a,b",
    b'"a", "b"',
    b'"a";b=1',
    b'"\x7f"',
    b'"caf\xc3\xa9"',
    b"caf\xe9",
    b'"a\\b"',
    b"x" * 256,
    b'"' + b"x" * 256 + b'"',
    b"a\n",
]


@pytest.mark.parametrize("value", MALFORMED)
def test_anything_else_is_refused(value: bytes) -> None:
    with pytest.raises(ClientException) as caught:
        parse_key([value])
    assert caught.value.status_code == 400


def test_two_keys_are_refused() -> None:
    with pytest.raises(ClientException):
        parse_key([b"a", b"a"])


async def test_a_malformed_key_is_a_problem_that_names_the_header(acme: TenantHandle) -> None:
    answer = await acme.post("/api/tags", json={"name": "Red"}, headers={"Idempotency-Key": "two words"})
    assert problem_of(answer) == (400, "/problems/idempotency-key-malformed")
    assert answer.json()["errors"][0] | {"message": ""} == {
        "field": "Idempotency-Key",
        "source": "header",
        "message": "",
    }
    assert await tags_of(acme) == []


async def test_other_requests_cost_no_statement_more(acme: TenantHandle) -> None:
    with recorded_statements(acme.world.database) as without:
        assert (await acme.post("/api/tags", json={"name": "Red"})).status_code == 201
    assert not [each for each in without if "idempotent" in each or "advisory" in each]
    with recorded_statements(acme.world.database) as first:
        assert (await acme.post("/api/tags", json={"name": "Blue"}, headers=keyed("k"))).status_code == 201
    # The last COMMIT is told when the block has ended.
    counts = [sum(each != "COMMIT" for each in statements) for statements in (without, first)]
    assert counts[1] == counts[0] + 3
    with recorded_statements(acme.world.database) as again:
        assert is_replay(await acme.post("/api/tags", json={"name": "Blue"}, headers=keyed("k")))
    # BEGIN, who asks, the lock, the answer.
    assert len(again) <= 5


# With handlers that exist for these tests alone.

INSERT = text("INSERT INTO probe (id, follows) VALUES (:id, :follows)")


@post("/rows/{number:int}")
async def insert(db_session: Injected[AsyncSession], number: FromPath[int]) -> Response[dict[str, Any]]:
    await db_session.execute(INSERT, {"id": number, "follows": None})
    return Response(
        {"id": number, "long": "x" * 3 * MAX_SEALABLE},
        headers={"Location": f"/api/rows/{number}", "Set-Cookie": "browser=1", "ETag": '"one"'},
    )


@post("/orphans/{number:int}")
async def insert_orphan(db_session: Injected[AsyncSession], number: FromPath[int]) -> dict[str, int]:
    # Follows a row that never comes: found out at COMMIT, when the answer is there already.
    await db_session.execute(INSERT, {"id": number, "follows": -1})
    return {"id": number}


@pytest.fixture
async def probe(world: World, acme: TenantHandle) -> Caller:
    schema = acme.context.schema
    async with as_admin(world.addresses) as admin:
        await admin.execute(
            f'SET ROLE tenantry_owner; CREATE TABLE "{schema}".probe (id integer PRIMARY KEY,'
            f' follows integer REFERENCES "{schema}".probe DEFERRABLE INITIALLY DEFERRED)'
        )
    state = world.app.state
    keys = IdempotencyKeys(state.vault, ttl=60)

    def middleware(app: ASGIApp) -> ASGIApp:
        tokens, hosts = Tokens(state.keyring, world.settings.token_issuer), HostNames(state.registry, None)
        return TenantMiddleware(app, database=world.database, registry=state.registry, tokens=tokens, hosts=hosts)

    async def before_request(request: Request[Any, Any, Any]) -> None:
        await begin_declared(request, tenant_request(request), keys.claim)

    app = Litestar(
        [
            Router(
                "/api",
                route_handlers=[insert, insert_orphan],
                middleware=[middleware],
                guards=[requires_active_user],
                opt={"load_principal": load_user_principal},
                before_request=before_request,
                exception_handlers={Replay: replay_answer},
            )
        ],
        dependencies={"db_session": Provide(provide_session)},
        plugins=[HttpPlugin(title="Probe", version="0")],
        logging_config=None,
        openapi_config=None,
    )
    app.state.permissions = state.permissions
    declare_routes(app.routes, {}, below="/api/")
    transport = httpx.ASGITransport(app=edge(app))  # type: ignore[arg-type]
    return Caller(httpx.AsyncClient(transport=transport, base_url="http://localhost"), acme.access_token)


async def test_a_constraint_that_is_violated_at_commit_leaves_no_answer(acme: TenantHandle, probe: Caller) -> None:
    headers = keyed()
    for _ in range(2):
        answer = await probe.post("/api/orphans/1", headers=headers)
        assert problem_of(answer) == (409, "/problems/conflict")
        assert not is_replay(answer)
    assert await records_of(acme) == 0


async def test_a_long_answer_is_kept_with_what_it_says_of_the_resource(acme: TenantHandle, probe: Caller) -> None:
    headers = keyed()
    first = await probe.post("/api/rows/1", headers=headers)
    assert (first.status_code, first.headers["Set-Cookie"]) == (201, "browser=1")
    again = await probe.post("/api/rows/1", headers=headers)
    assert (again.status_code, again.content) == (201, first.content)
    assert (again.headers["Location"], again.headers["ETag"]) == ("/api/rows/1", '"one"')
    assert "Set-Cookie" not in again.headers, "a cookie is one browser's"
    assert again.headers["X-Request-ID"] != first.headers["X-Request-ID"]


async def test_without_a_key_the_same_route_does_it_twice(probe: Caller) -> None:
    assert (await probe.post("/api/rows/1")).status_code == 201
    assert (await probe.post("/api/rows/1")).status_code == 409
