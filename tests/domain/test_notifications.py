"""Notifications: who is told of what, once; and that nobody but the person who is told has a say in it."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text, update
from uuid_utils.compat import uuid7

from tenantry.domain.identity.invitations.service import invite_owner
from tenantry.domain.identity.users.models import User
from tenantry.domain.identity.users.queries import HoldersOf
from tenantry.domain.notifications.jobs import notify
from tenantry.domain.notifications.models import Notification, NotificationInbox
from tenantry.domain.notifications.service import tell
from tenantry.domain.organization.jobs import announce_export, pause_before
from tenantry.domain.roles.models import Role, UserRole
from tenantry.events.definition import (
    NOTIFIED,
    Event,
    EventCatalogue,
    Payload,
    RecordedEvent,
    using_catalogue,
)
from tenantry.events.notification import NamedIn, NotificationKind, the_subject
from tenantry.events.record import record_event, user_actor
from tenantry.features import DOMAIN_FEATURES, EVENTS, JOBS, MAILS, NOTIFICATIONS
from tenantry.jobs.testing import JobBox
from tenantry.kernel.feature import Feature, Owner
from tenantry.kernel.mail import Mailer
from tenantry.kernel.security import INVITATION, Credential, Vault
from tenantry.kernel.settings import Settings
from tenantry.platform.provisioning.models import Operation
from tenantry.tenancy.context import control_scope
from tenantry.tenancy.wiring import scope_times
from tests.world import PASSWORD, Caller, TenantHandle, World


@pytest.fixture
def box(world: World) -> JobBox:
    control = control_scope(scope_times(world.settings), read_only=False)
    resources = {
        Settings: world.settings,
        Vault: world.app.state.vault,
        Mailer: Mailer(world.settings, MAILS.folders),
    }
    return JobBox(world.database, control, JOBS, resources)


async def told(caller: Caller, **params: Any) -> list[dict[str, Any]]:
    """What the caller was told, the oldest first."""
    found = await caller.get("/api/notifications", params={"pageSize": 200, "sortOrder": "asc", **params})
    assert found.status_code == 200, found.text
    return found.json()["items"]  # type: ignore[no-any-return]


async def kinds(caller: Caller, **params: Any) -> list[str]:
    return [item["kind"] for item in await told(caller, **params)]


async def unread(caller: Caller) -> int:
    found = await caller.get("/api/notifications/unread-count")
    assert found.status_code == 200, found.text
    return int(found.json()["unread"])


async def give(tenant: TenantHandle, *users: UUID | None, count: int = 1, actor: str = "system") -> list[UUID]:
    """Tell users of something; the ids of the events."""
    made = []
    for _ in range(count):
        event = RecordedEvent(
            id=uuid7(),
            name="team.member_added",
            actor=actor,
            subject=uuid4(),
            payload={"role": "member"},
            request_id=None,
            occurred_at=datetime.datetime.now(datetime.UTC),
        )
        async with tenant.world.database.transaction(tenant.context.write_scope) as transaction:
            await tell(transaction.session, NOTIFICATIONS["team.member_added"], event, [user for user in users if user])
        made.append(event.id)
    return made


async def rows(tenant: TenantHandle) -> list[Notification]:
    async with tenant.world.database.transaction(tenant.context.read_scope) as transaction:
        return list(await transaction.session.scalars(select(Notification).order_by(Notification.position)))


# Who is told of what.


async def test_who_is_put_into_a_team_is_told_and_nobody_else_is(
    box: JobBox, acme: TenantHandle, globex: TenantHandle
) -> None:
    ann, bob = await acme.add_user("ann", "member"), await acme.add_user("bob", "member")
    team = await acme.add_team("Red")
    members = f"/api/teams/{team['id']}/members"
    assert (await acme.post(members, json={"userId": str(ann.id)})).status_code == 201
    assert (await acme.patch(f"{members}/{ann.id}", json={"role": "admin"})).status_code == 200
    assert (await acme.delete(f"{members}/{ann.id}")).status_code == 204
    await box.drain(acme.context)
    added, changed, removed = await told(ann)
    assert [item["kind"] for item in (added, changed, removed)] == [
        "team.member_added",
        "team.member_role_changed",
        "team.member_removed",
    ]
    assert (added["actor"], added["subject"], added["readAt"]) == (f"user:{acme.id}", team["id"], None)
    assert added["payload"] == {"user_id": str(ann.id), "role": "member"}
    assert changed["payload"]["role"] == "admin"
    for other in (bob, acme, globex):
        assert await told(other) == []


async def test_nobody_is_told_of_what_they_have_done_themselves(box: JobBox, acme: TenantHandle) -> None:
    ann = await acme.add_user("ann", "member")
    team = await acme.add_team("Red")
    members = f"/api/teams/{team['id']}/members"
    assert (await acme.post(members, json={"userId": str(ann.id)})).status_code == 201
    assert (await ann.delete(f"{members}/{ann.id}")).status_code == 204
    await box.drain(acme.context)
    assert await kinds(ann) == ["team.member_added"]


async def test_roles_and_letting_in_again_are_told_of_and_being_shut_out_is_not(
    box: JobBox, acme: TenantHandle
) -> None:
    ann = await acme.add_user("ann", "member")
    address = f"/api/users/{ann.id}"
    for change in ({"roles": ["admin"]}, {"isActive": False}, {"roles": ["viewer"]}):
        assert (await acme.patch(address, json=change)).status_code == 200
    # Nobody is told while their account is deactivated, whatever happens to it.
    await box.drain(acme.context)
    assert (await acme.patch(address, json={"isActive": True})).status_code == 200
    await box.drain(acme.context)
    again = await acme.world.log_in(acme.slug, f"ann@{acme.slug}.example")
    assert await kinds(again) == ["user.activated"]


async def test_an_export_is_told_to_all_others_who_may_ask_for_one(box: JobBox, acme: TenantHandle) -> None:
    admin, member = await acme.add_user("ada", "admin"), await acme.add_user("mia", "member")
    assert (await acme.post("/api/organization/exports")).status_code == 202
    await box.drain(acme.context)
    assert await kinds(admin) == ["organization.export_requested"]
    assert await kinds(member) == await kinds(acme) == []


async def test_who_has_asked_for_an_export_is_told_once_it_is_ready(box: JobBox, acme: TenantHandle) -> None:
    admin = await acme.add_user("ada", "admin")
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    made = (await admin.post("/api/organization/exports")).json()
    assert await box.enqueued(acme.context, announce_export), "looked for later, not now"
    address = f"/api/organization/exports/{made['id']}"
    async with asyncio.timeout(60):
        while (await admin.get(address)).json()["status"] == "pending":
            await asyncio.sleep(0.05)
    await box.drain(acme.context, at=later)
    [item] = await told(admin)
    assert (item["kind"], item["actor"], item["subject"]) == ("organization.export_ready", "system", made["id"])
    assert await kinds(acme) == ["organization.export_requested"]


async def test_an_export_that_is_not_ready_is_looked_for_again_and_one_that_failed_is_told(
    box: JobBox, acme: TenantHandle
) -> None:
    pending, failed, tomorrow = uuid7(), uuid7(), datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    control = control_scope(scope_times(acme.world.settings), read_only=False)
    async with acme.world.database.transaction(control) as transaction:
        for export_id, status in ((pending, "pending"), (failed, "failed")):
            transaction.session.add(
                Operation(
                    id=export_id,
                    kind="export",
                    status=status,
                    tenant_id=acme.tenant_id,
                    # Nobody begins it today.
                    not_before=tomorrow,
                    requested_by=f"user:{acme.tenant_id}/{acme.id}",
                )
            )
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        for export_id in (pending, failed, uuid4()):
            await announce_export.enqueue(transaction.session, export_id=export_id, user_id=acme.id)
    await box.drain(acme.context)
    assert await kinds(acme) == ["organization.export_failed"]
    [again] = await box.enqueued(acme.context, announce_export)
    assert again.arguments == {"export_id": str(pending), "user_id": str(acme.id), "look": 1}
    assert again.due > datetime.datetime.now(datetime.UTC)
    # Not for ever.
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        await announce_export(transaction.session, export_id=pending, user_id=acme.id, look=299)
    assert await box.enqueued(acme.context, announce_export) == [again]


def test_an_export_is_looked_for_less_and_less_often() -> None:
    assert [pause_before(look) for look in (0, 1, 2, 6, 299)] == [5, 10, 20, 300, 300]


async def test_a_stolen_refresh_token_is_told_to_whose_it_is(box: JobBox, acme: TenantHandle) -> None:
    ann = await acme.add_user("ann", "member")
    stolen = {"refreshToken": ann.refresh_token}
    for status in (200, 401):
        assert (await ann.http.post("/api/auth/refresh", json=stolen)).status_code == status
    await box.drain(acme.context)
    again = await acme.world.log_in(acme.slug, f"ann@{acme.slug}.example")
    [item] = await told(again)
    assert (item["kind"], item["actor"]) == ("session.revoked", "system")


async def _accept_invitation(tenant: TenantHandle, user_id: UUID, email: str) -> None:
    token, digest = Credential.new(INVITATION, tenant.tenant_id)
    async with tenant.world.database.transaction(tenant.context.write_scope) as transaction:
        await invite_owner(
            transaction.session, Owner(email=email, id=user_id, invitation_hash=digest, invitation_ttl=600)
        )
    accepted = await tenant.http.post("/api/auth/invitations/accept", json={"token": token, "password": PASSWORD})
    assert accepted.is_success, accepted.text


async def test_who_has_invited_somebody_is_told_that_they_are_here(box: JobBox, acme: TenantHandle) -> None:
    ada = await acme.add_user("ada", "admin")
    made = await ada.post("/api/users", json={"email": "ann@people.example", "password": PASSWORD})
    await _accept_invitation(acme, UUID(made.json()["id"]), "ann@people.example")
    await box.drain(acme.context)
    [item] = await told(ada)
    assert (item["kind"], item["payload"]) == ("invitation.accepted", {"user_id": made.json()["id"]})
    assert await told(acme) == []


async def test_where_an_operator_has_invited_those_are_told_who_add_people(box: JobBox, acme: TenantHandle) -> None:
    ada, mia = await acme.add_user("ada", "admin"), await acme.add_user("mia", "member")
    await box.drain(acme.context)
    assert acme.id is not None
    await _accept_invitation(acme, acme.id, acme.owner_email)
    await box.drain(acme.context)
    assert await kinds(ada) == ["invitation.accepted"]
    assert await told(mia) == await told(acme) == []


async def test_holders_of_a_permission_are_all_who_hold_it_by_whatever_role(acme: TenantHandle) -> None:
    callers = {role: await acme.add_user(role, role) for role in ("admin", "member", "viewer")}
    callers |= {name: await acme.add_user(name) for name in ("own", "other", "super", "gone")}
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        session = transaction.session
        for name, held, permissions in (
            ("own", "own", ["tags:read", "users:write"]),
            ("other", "admin-like", ["users:writes", "tags:write"]),
            ("gone", "also", ["users:write"]),
        ):
            role = Role(slug=held, name=held, permissions=permissions)
            session.add(UserRole(user_id=callers[name].id, role=role))
        await session.flush()
        for name, values in (("super", {"is_superuser": True}), ("gone", {"is_active": False})):
            await session.execute(update(User).where(User.id == callers[name].id).values(values))
        with using_catalogue(EVENTS):
            event: Any = None
            found = await HoldersOf("users:write")(session, event)
    assert found == {acme.id, callers["admin"].id, callers["own"].id, callers["super"].id}


# Exactly once.


async def test_a_job_that_runs_twice_tells_once(box: JobBox, acme: TenantHandle) -> None:
    ann = await acme.add_user("ann", "member")
    await box.drain(acme.context)
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        event = await record_event(
            transaction.session,
            "team.member_added",
            subject=uuid7(),
            payload={"user_id": ann.id, "role": "member"},
        )
        for _ in range(2):
            await notify.enqueue(transaction.session, event=event)
    results = await box.drain(acme.context)
    assert sorted(each for each in results if isinstance(each, int)) == [0, 0, 1]
    assert len(await told(ann)) == 1


async def test_two_attempts_at_the_same_moment_tell_once(acme: TenantHandle) -> None:
    ann, kind = await acme.add_user("ann", "member"), NOTIFICATIONS["team.member_added"]
    assert ann.id is not None
    event = RecordedEvent(
        id=uuid7(),
        name=kind.name,
        actor="system",
        subject=uuid7(),
        payload={},
        request_id=None,
        occurred_at=datetime.datetime.now(datetime.UTC),
    )
    database, scope = acme.world.database, acme.context.write_scope
    async with database.transaction(scope) as first:
        assert await tell(first.session, kind, event, [ann.id]) == [ann.id]

        async def again() -> list[UUID]:
            async with database.transaction(scope) as second:
                return await tell(second.session, kind, event, [ann.id] if ann.id else [])

        waiting = asyncio.create_task(again())
        while not await first.session.scalar(_WAIT_FOR_US):
            assert not waiting.done(), "it should have waited for the inbox"
    assert await waiting == []
    assert len(await told(ann)) == 1


_WAIT_FOR_US = text(
    "SELECT count(*) FROM pg_locks WHERE NOT granted AND transactionid = CAST(pg_current_xact_id() AS xid)"
)


async def test_positions_are_in_the_order_of_commits_and_given_once(acme: TenantHandle) -> None:
    ann = await acme.add_user("ann", "member")
    await give(acme, ann.id, acme.id)
    await give(acme, ann.id)
    newest = (await told(ann))[-1]
    assert (await ann.delete(f"/api/notifications/{newest['id']}")).status_code == 204
    await give(acme, ann.id)
    assert [row.position for row in await rows(acme) if row.user_id == ann.id] == [1, 3]
    async with acme.world.database.transaction(acme.context.read_scope) as transaction:
        inboxes = {row.id: row.position for row in await transaction.session.scalars(select(NotificationInbox))}
    assert inboxes == {ann.id: 3, acme.id: 1}


async def test_many_are_told_at_once_and_each_once(acme: TenantHandle) -> None:
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        users = [User(email=f"user-{number}@people.example") for number in range(1200)]
        transaction.session.add_all(users)
        await transaction.session.flush()
        ids = [user.id for user in users]
    await give(acme, *ids, *ids[:10])
    made = await rows(acme)
    assert sorted(row.user_id for row in made) == sorted(ids)
    assert {row.position for row in made} == {1}


async def test_whose_doing_it_was_is_left_out_whatever_the_recipients_say(acme: TenantHandle) -> None:
    ann, bob = await acme.add_user("ann", "member"), await acme.add_user("bob", "member")
    assert ann.id is not None
    await give(acme, ann.id, bob.id, actor=user_actor(ann.id))
    assert (len(await told(ann)), len(await told(bob))) == (0, 1)


# Kinds of one's own.


class Launched(Payload):
    crew: list[UUID]


LAUNCHED = Event("rocket.launched", "It flies.", Launched)


def rockets(*notifications: Any) -> EventCatalogue:
    return EventCatalogue((*DOMAIN_FEATURES, Feature(name="rockets", events=(LAUNCHED,), notifications=notifications)))


@pytest.fixture
async def _rockets() -> AsyncIterator[None]:
    with using_catalogue(rockets(NotificationKind("rocket.launched", "You fly.", NamedIn("crew")))):
        yield


@pytest.mark.usefixtures("_rockets")
async def test_a_features_own_kind_needs_its_line_in_the_manifest_and_nothing_else(
    box: JobBox, acme: TenantHandle, globex: TenantHandle
) -> None:
    ann, bob = await acme.add_user("ann", "member"), await acme.add_user("bob", "member")
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        await record_event(
            transaction.session, "rocket.launched", subject=uuid7(), payload={"crew": [ann.id, bob.id, globex.id]}
        )
    await box.drain(acme.context)
    assert await kinds(ann) == await kinds(bob) == ["rocket.launched"]
    assert await told(globex) == [], "an id of another organization's user is nobody's"
    listed = (await ann.get("/api/notifications/preferences")).json()["items"]
    assert {"kind": "rocket.launched", "description": "You fly.", "inApp": True, "default": True} in listed


async def _nobody(*_: Any) -> set[UUID]:
    return set()


@pytest.mark.parametrize(
    ("kind", "error", "match"),
    [
        (NotificationKind("rocket.sank", "It sank.", _nobody), ValueError, r"no event 'rocket\.sank' to tell of"),
        (NotificationKind("rocket.launched", "You fly.", NamedIn("passengers")), ValueError, "no field 'passengers'"),
        (NotificationKind("rocket.launched", "It flies.", HoldersOf("rockets:fly")), ValueError, "'rockets:fly'"),
        (LAUNCHED, TypeError, "expected a NotificationKind"),
    ],
)
def test_a_kind_that_could_tell_nobody_is_refused_at_the_start(kind: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        rockets(kind)


def test_an_event_is_told_of_in_one_way() -> None:
    kind = NotificationKind("rocket.launched", "It flies.", the_subject)
    with pytest.raises(ValueError, match="two notifications tell of"):
        rockets(kind, NotificationKind("rocket.launched", "It flies!", the_subject))


def test_the_job_is_enqueued_with_the_events_of_which_people_are_told_and_no_others() -> None:
    assert {name for name in EVENTS.events if notify in EVENTS.handlers(name)} == NOTIFICATIONS.keys()
    assert NOTIFIED not in EVENTS.events
    assert notify in JOBS


@pytest.mark.parametrize("kind", NOTIFICATIONS.values(), ids=lambda kind: kind.name)
def test_every_kind_says_what_has_happened_in_a_sentence(kind: NotificationKind) -> None:
    assert kind.description[0].isupper()
    assert kind.description.endswith(".")


async def test_a_kind_that_a_later_release_has_dropped_is_told_to_nobody(box: JobBox, acme: TenantHandle) -> None:
    with using_catalogue(rockets(NotificationKind("rocket.launched", "You fly.", NamedIn("crew")))):
        async with acme.world.database.transaction(acme.context.write_scope) as transaction:
            await record_event(transaction.session, "rocket.launched", subject=uuid7(), payload={"crew": [acme.id]})
    await box.drain(acme.context)
    assert await box.enqueued(acme.context, notify) == []
    assert await told(acme) == []
