"""Events: declared in manifests, written down with their data, and handed to jobs."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal
from uuid import UUID, uuid4

import msgspec
import pytest
import structlog
from msgspec import inspect
from sqlalchemy import func, select
from uuid_utils.compat import uuid7

from tenantry.domain.tags.service import TagService
from tenantry.events.definition import (
    EVERY,
    CodeName,
    Event,
    EventCatalogue,
    Payload,
    RecordedEvent,
    current_catalogue,
    use_catalogue,
    using_catalogue,
)
from tenantry.events.models import AuditEvent
from tenantry.events.record import current_actor, record_event
from tenantry.features import DOMAIN_FEATURES, EVENTS, JOBS
from tenantry.jobs.definition import job
from tenantry.jobs.testing import JobBox
from tenantry.kernel.feature import Feature
from tenantry.tenancy.context import control_scope
from tenantry.tenancy.wiring import scope_times
from tests.platform.support import as_admin
from tests.world import TenantHandle, World


class Launched(Payload):
    pad: int
    crew: list[UUID] = []
    mood: Literal["calm", "wild"] = "calm"


LAUNCHED = Event("rocket.launched", "It flies.", Launched)
LANDED = Event("rocket.landed", "It is back.")


@job("log_rocket")
async def log_rocket(event: RecordedEvent, tags: TagService) -> str:
    await tags.make(name=f"{event.name} {event.payload.get('pad', 0)}")
    return str(event.id)


@job("see_all")
async def see_all(event: RecordedEvent) -> str:
    return event.name


@job("no_handler")
async def no_handler(number: int) -> None: ...


@job("for_operators", platform=True)
async def for_operators(event: RecordedEvent) -> None: ...


def rockets(**handlers: Any) -> EventCatalogue:
    """Rockets, besides what there is; a handler's name has `_` for the dot."""
    named = {name.replace("_", "."): handler for name, handler in handlers.items()}
    return EventCatalogue((*DOMAIN_FEATURES, Feature(name="rockets", events=(LAUNCHED, LANDED), handlers=named)))


@pytest.fixture
def _rockets() -> Iterator[None]:
    with using_catalogue(rockets()):
        yield


@pytest.fixture
async def box(world: World) -> AsyncIterator[JobBox]:
    control = control_scope(scope_times(world.settings), read_only=False)
    yield JobBox(world.database, control, (log_rocket, see_all))
    async with as_admin(world.addresses) as admin:
        await admin.execute("DELETE FROM platform.outbox")


async def events_of(tenant: TenantHandle, name: str) -> list[AuditEvent]:
    async with tenant.world.database.transaction(tenant.context.read_scope) as transaction:
        return list(await transaction.session.scalars(select(AuditEvent).where(AuditEvent.name == name)))


# The catalogue.


def _leaves(kind: inspect.Type) -> Iterator[inspect.Type]:
    if isinstance(kind, inspect.UnionType):
        for each in kind.types:
            yield from _leaves(each)
    elif isinstance(kind, inspect.ListType):
        yield from _leaves(kind.item_type)
    else:
        yield kind


@pytest.mark.parametrize("event", EVENTS.events.values(), ids=lambda event: event.name)
def test_no_event_says_anything_personal(event: Event) -> None:
    """An e-mail address or a name is text, and there is no field that could hold a text of anybody's.

    But for names that code gives and nobody types: those of routes.
    """
    described = inspect.type_info(event.payload)
    assert isinstance(described, inspect.StructType)
    for field in described.fields:
        for leaf in _leaves(field.type):
            if leaf == inspect.type_info(CodeName):
                assert str(event.name) == "operator_access.used", "to add another one is a decision"
                continue
            assert isinstance(
                leaf,
                inspect.UUIDType | inspect.IntType | inspect.BoolType | inspect.LiteralType | inspect.NoneType,
            )
    assert event.description.endswith(".")


@pytest.mark.parametrize("text", ["ann@example.com", "Ann Example", "Zoë", "/api/teams\n", ""])
async def test_a_name_of_code_is_no_text_of_anybodys(text: str) -> None:
    class Visited(Payload):
        route: CodeName

    assert Event("rocket.visited", "Somebody came.", Visited).payload is Visited
    assert msgspec.convert({"route": "/api/teams/{team_id}"}, Visited).route == "/api/teams/{team_id}"
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"route": text}, Visited)


@pytest.mark.parametrize("kind", [str, str | None, list[str], dict[str, int], float, bytes, datetime.datetime, Any])
def test_a_payload_that_could_hold_somebodys_text_is_refused(kind: Any) -> None:
    loose: Any = msgspec.defstruct("Loose", [("fine", int), ("who", kind)], bases=(Payload,), kw_only=True)
    with pytest.raises(TypeError, match="its field 'who' could hold personal data"):
        Event("rocket.launched", "It flies.", loose)


@pytest.mark.parametrize("name", ["launched", "rocket.Launched", "rocket.", "a.b.c", "rocket launched", "*"])
def test_an_event_is_named_by_resource_and_verb(name: str) -> None:
    with pytest.raises(ValueError, match="expected a name such as"):
        Event(name, "It flies.")


def test_an_event_is_declared_once() -> None:
    with pytest.raises(ValueError, match=r"'rocket\.landed' is declared twice"):
        EventCatalogue([Feature(name="one", events=(LANDED,)), Feature(name="two", events=(LANDED,))])


def test_a_handler_of_an_event_that_nobody_declares_is_refused() -> None:
    with pytest.raises(ValueError, match=r"feature 'rockets': there is no event 'rocket\.sank' to handle"):
        rockets(rocket_sank=see_all)


@pytest.mark.parametrize("handler", [no_handler, for_operators, test_an_event_is_declared_once])
def test_a_handler_is_a_tenants_job_that_takes_an_event(handler: Any) -> None:
    with pytest.raises(TypeError, match="to handle an event"):
        rockets(rocket_landed=handler)


def test_every_handler_is_a_job_that_workers_know() -> None:
    handlers = [each for feature in DOMAIN_FEATURES for each in feature.handlers.values()]
    assert set(handlers) <= set(JOBS)
    assert len(set(JOBS)) == len(JOBS)


def test_a_process_without_a_catalogue_records_nothing() -> None:
    before = use_catalogue(None)
    try:
        with pytest.raises(RuntimeError, match=r"import tenantry\.features"):
            current_catalogue()
    finally:
        use_catalogue(before)
    assert current_catalogue() is EVENTS


# Recording.


@pytest.mark.usefixtures("_rockets")
async def test_an_event_is_there_if_and_only_if_its_transaction_commits(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    # What the requests before have left in this task's context.
    structlog.contextvars.clear_contextvars()
    subject, crew = uuid7(), [uuid4(), uuid4()]
    async with world.database.transaction(acme.context.write_scope) as transaction:
        made = await record_event(
            transaction.session, "rocket.launched", subject=subject, payload={"pad": 3, "crew": crew, "mood": "wild"}
        )
    with pytest.raises(RuntimeError, match="rolled back"):
        await _record_and_fail(world, acme, "rocket.launched", pad=4)
    [event] = await events_of(acme, "rocket.launched")
    assert (event.id, event.subject, event.actor, event.request_id) == (made.id, subject, "system", None)
    assert event.payload == {"pad": 3, "crew": [str(each) for each in crew], "mood": "wild"}
    assert abs(datetime.datetime.now(datetime.UTC) - event.occurred_at) < datetime.timedelta(minutes=1)
    assert await events_of(globex, "rocket.launched") == []


@pytest.mark.usefixtures("_rockets")
@pytest.mark.parametrize(
    ("name", "payload", "error", "match"),
    [
        ("rocket.sank", {}, LookupError, r"no feature declares an event 'rocket\.sank'"),
        ("rocket.launched", {}, TypeError, "missing required field `pad`"),
        ("rocket.launched", {"pad": "ann@example.com"}, TypeError, "Expected `int`"),
        ("rocket.launched", {"pad": 1, "mood": "ann@example.com"}, TypeError, "Invalid enum value"),
        ("rocket.launched", {"pad": 1, "email": "ann@example.com"}, TypeError, "unknown field `email`"),
        ("rocket.landed", {"pad": 1}, TypeError, "unknown field `pad`"),
    ],
)
async def test_what_no_feature_has_declared_is_an_error_of_ours(
    world: World, acme: TenantHandle, name: str, payload: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        async with world.database.transaction(acme.context.write_scope) as transaction:
            await record_event(transaction.session, name, subject=uuid7(), payload=payload)


@pytest.mark.parametrize(
    ("context", "actor"),
    [
        ({}, "system"),
        ({"user_id": "u"}, "user:u"),
        ({"api_key_id": "k"}, "api_key:k"),
        ({"operator": "o", "user_id": "u"}, "operator"),
        ({"job_name": "seal", "actor": "schedule"}, "job:seal"),
        ({"job_name": "send", "user_id": "u"}, "user:u"),
    ],
)
def test_the_actor_is_whoever_asked_for_it(context: dict[str, str], actor: str) -> None:
    with structlog.contextvars.bound_contextvars(**context):
        assert current_actor() == actor


async def test_a_request_records_its_user_and_its_id(acme: TenantHandle) -> None:
    ann = await acme.add_user("ann", "admin")
    made = await ann.post("/api/tags", json={"name": "Blue"}, headers={"X-Request-ID": "paint-it-blue"})
    assert made.status_code == 201, made.text
    [event] = await events_of(acme, "tag.created")
    assert (event.actor, event.request_id, str(event.subject)) == (f"user:{ann.id}", "paint-it-blue", made.json()["id"])


async def test_a_request_that_is_refused_records_nothing(acme: TenantHandle) -> None:
    await acme.post("/api/tags", json={"name": "Blue"})
    assert (await acme.post("/api/tags", json={"name": "Blue"})).status_code == 409
    assert len(await events_of(acme, "tag.created")) == 1


# Handlers.


async def test_an_event_is_handed_to_the_jobs_that_are_for_it_and_to_those_for_all(
    world: World, acme: TenantHandle, globex: TenantHandle, box: JobBox
) -> None:
    watching = Feature(name="watching", handlers={EVERY: see_all})
    launching = Feature(name="rockets", events=(LAUNCHED, LANDED), handlers={"rocket.launched": log_rocket})
    with using_catalogue(EventCatalogue((*DOMAIN_FEATURES, launching, watching))):
        async with world.database.transaction(acme.context.write_scope) as transaction:
            made = await record_event(transaction.session, "rocket.launched", subject=uuid7(), payload={"pad": 7})
            await record_event(transaction.session, "rocket.landed", subject=uuid7())
        assert await box.enqueued(globex.context) == []
        first, second, third = await box.enqueued(acme.context)
        assert [first.name, second.name, third.name] == ["log_rocket", "see_all", "see_all"]
        assert msgspec.convert(first.arguments["event"], RecordedEvent) == made
        results = await box.drain(acme.context)
    # The tag that the handler makes is an event as well, which is handed on.
    assert results == [str(made.id), "rocket.launched", "rocket.landed", "tag.created"]
    names = {item["name"] for item in (await acme.get("/api/tags")).json()["items"]}
    assert names == {"rocket.launched 7"}


async def test_what_is_rolled_back_is_handed_to_nobody(world: World, acme: TenantHandle, box: JobBox) -> None:
    with using_catalogue(rockets(rocket_landed=see_all)):
        with pytest.raises(RuntimeError, match="rolled back"):
            await _record_and_fail(world, acme, "rocket.landed")
        assert await box.enqueued(acme.context) == []


async def _record_and_fail(world: World, tenant: TenantHandle, name: str, **payload: object) -> None:
    async with world.database.transaction(tenant.context.write_scope) as transaction:
        await record_event(transaction.session, name, subject=uuid7(), payload=payload)
        seen = await transaction.session.scalar(select(func.count()).where(AuditEvent.name == name))
        assert seen
        raise RuntimeError("rolled back")
