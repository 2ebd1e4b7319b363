"""Erasing people: nothing of theirs is left anywhere, the trail holds, and others keep what is theirs."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
from sqlalchemy import CheckConstraint, Column, Table, Text, select, text

from tenantry.domain.identity.api_keys.models import ApiKey
from tenantry.domain.identity.people.service import PeopleService, provide_people
from tenantry.domain.identity.users.models import User
from tenantry.features import TENANT_METADATA
from tenantry.kernel.errors import ConflictException, ValidationFailedException
from tests.domain.machines import make_key
from tests.domain.test_audit import seal, verify
from tests.domain.test_last_owner import _is_blocked_by, _owners
from tests.domain.test_people import add_member, names_of_events, roles_in
from tests.isolation.planting import plant_row, words_of
from tests.isolation.routes import snapshot
from tests.mail.support import mails_of, post, waiting
from tests.mailserver import open_mail_server
from tests.world import PASSWORD, Caller, TenantHandle, World

WORD = "zebedaeus"
"""In everything that is planted of a person, and in nothing else."""
EMAIL = f"{WORD}@people.example"
NAME = f"{WORD.title()} Quisling"


async def add(tenant: TenantHandle, **body: Any) -> Caller:
    """The person whom these tests are about, signed in."""
    wanted = {"email": EMAIL, "password": PASSWORD, "name": NAME, "roles": ["member"], **body}
    made = await tenant.post("/api/users", json=wanted)
    assert made.status_code == 201, made.text
    caller = await tenant.world.log_in(tenant.slug, EMAIL)
    caller.id = UUID(made.json()["id"])
    return caller


async def erase(by: Caller, who: object, email: str = EMAIL, **body: Any) -> httpx.Response:
    return await by.post(f"/api/users/{who}/erase", json={"email": email, **body})


async def rows_of(tenant: TenantHandle) -> dict[str, list[dict[str, Any]]]:
    async with tenant.world.database.transaction(tenant.context.read_scope) as transaction:
        return await snapshot(transaction.session)


def mentions(rows: dict[str, list[dict[str, Any]]], *words: str) -> set[str]:
    """Columns, as `table.column`, in which one of the words is, however it is spelt."""
    return {
        f"{table}.{column}"
        for table, found in rows.items()
        for row in found
        for column, value in row.items()
        if any(word.lower() in _text(value) for word in words)
    }


def _text(value: object) -> str:
    return (value.decode("latin-1") if isinstance(value, bytes) else str(value)).lower()


def _room(table: Table, column: Column[Any]) -> int:
    """Characters that a CHECK leaves to a column."""
    for constraint in table.constraints:
        if isinstance(constraint, CheckConstraint) and (
            found := re.fullmatch(
                rf"char_length\({column.name}\) (?:<=|BETWEEN \d+ AND) (\d+)", str(constraint.sqltext)
            )
        ):
            return int(found[1])
    return 1000


async def plant_everywhere(tenant: TenantHandle, user_id: UUID) -> set[str]:
    """A row in each table that can be about a person, by each key that may say so, their name in every text of it.

    Of what stays without them (ON DELETE SET NULL), the texts are the organization's. Returns the columns.
    """
    planted: set[str] = set()
    async with tenant.world.database.transaction(tenant.context.write_scope) as transaction:
        for table in TENANT_METADATA.sorted_tables:
            keys = [
                (column, key)
                for column in table.columns
                for key in column.foreign_keys
                if key.column.table.name == "user_account"
            ]
            texts = [each for each in table.columns if isinstance(each.type, Text) and not words_of(table, each)]
            for column, key in keys:
                if key.ondelete == "CASCADE":
                    given: dict[str, object] = {
                        each.name: f"{column.name[:2]} {WORD}"[: _room(table, each)] for each in texts
                    }
                    await plant_row(transaction.session, table, {**given, column.name: user_id})
                    planted |= {f"{table.name}.{each.name}" for each in texts}
    return planted


@pytest.mark.parametrize("how", ["by an administrator", "by themselves"])
async def test_after_an_erasure_no_column_of_any_table_holds_the_persons_address_or_name(
    world: World, acme: TenantHandle, globex: TenantHandle, how: str
) -> None:
    """Generated from the models: a table that is added is planted with the name, and looked through."""
    async with open_mail_server() as server:
        # Before they had an account, and were not interested.
        red = await acme.add_team("Red")
        asked = await acme.post(f"/api/teams/{red['id']}/invitations", json={"email": EMAIL.upper()})
        assert asked.status_code == 201, asked.text
        declined = await world.http.post("/api/auth/team-invitations/decline", json={"token": asked.json()["token"]})
        assert declined.is_success, declined.text
        person, namesake = await add(acme), await add(globex)
        for who in (person, namesake):
            changed = await who.patch("/api/users/me", json={"avatarUrl": f"https://cdn.example/{WORD}.png"})
            assert changed.status_code == 200, changed.text
        await add_member(acme, red, person)
        key = await make_key(person, name=f"{NAME}'s laptop")
        assert (await world.http.post("/api/auth/refresh", json={"refreshToken": person.refresh_token})).is_success
        person = await _again(world, acme, person)
        assert person.id is not None
        columns = await plant_everywhere(acme, person.id)
        assert {"user_session.user_agent", "team_invitation.email", "api_key.name", "notification.kind"} <= columns
        assert (
            await world.http.post("/api/auth/password-reset", json={"tenant": acme.slug, "email": EMAIL})
        ).status_code == 202
        assert len(await waiting(acme)) == 1
        await seal(acme)
        before, theirs = await rows_of(acme), await rows_of(globex)
        assert mentions(before, WORD) >= columns
        answer = (
            await erase(acme, person.id)
            if how == "by an administrator"
            else await person.post("/api/users/me/erase", json={"password": PASSWORD})
        )
        assert (answer.status_code, answer.content) == (204, b"")
        rows = await rows_of(acme)
        assert mentions(rows, WORD) == set()
        # By id the trail alone, and what others were told, may name them.
        assert mentions(rows, str(person.id)) <= {
            "audit_event.actor",
            "audit_event.payload",
            "audit_event.subject",
            "notification.actor",
            "notification.payload",
            "notification.subject",
        }
        assert (await person.get("/api/users/me")).status_code == 401
        assert not await key.works()
        # What waited to be written to them is not sent any more; nobody keeps their address to do it.
        assert mails_of(await post(acme, server), WORD) == []
        assert mentions(await rows_of(acme), WORD) == set()
        assert await _mentioned_by_the_platform(world, WORD) == set()
    events = (await acme.get("/api/audit", params={"name": "user.erased"})).json()["items"]
    actor = f"user:{acme.id if how == 'by an administrator' else person.id}"
    assert [(each["subject"], each["actor"], each["payload"]) for each in events] == [(str(person.id), actor, {})]
    await seal(acme)
    chain = await verify(acme)
    assert (chain.broken, chain.unsealed) == (None, 0)
    assert await rows_of(globex) == theirs
    assert (await namesake.get("/api/users/me")).json()["email"] == EMAIL


async def _again(world: World, tenant: TenantHandle, person: Caller) -> Caller:
    caller = await world.log_in(tenant.slug, EMAIL)
    caller.id = person.id
    return caller


async def _mentioned_by_the_platform(world: World, word: str) -> set[str]:
    """Tables of the control plane, jobs that wait among them, in which the word is."""
    admin = await asyncpg.connect(world.addresses.admin_url)
    try:
        tables = await admin.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'platform'")
        return {
            row["tablename"]
            for row in tables
            if await admin.fetchval(
                f'SELECT EXISTS (SELECT FROM platform."{row["tablename"]}" r WHERE r::text ILIKE $1)', f"%{word}%"
            )
        }
    finally:
        await admin.close()


async def test_of_the_first_owner_the_control_plane_keeps_nothing_either(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    """Operators write to the owner whose address they were given; from then on to one who is still there."""
    heir = await acme.add_user("heir", "owner")
    assert heir.id is not None
    assert acme.owner_email in await _owner_addresses(world, acme)
    theirs = await _owner_addresses(world, globex)
    assert (await acme.post("/api/users/me/erase", json={"password": PASSWORD})).status_code == 204
    assert await _mentioned_by_the_platform(world, acme.owner_email) == set()
    assert await _owner_addresses(world, acme) == [f"heir@{acme.slug}.example"]
    assert await _owner_addresses(world, globex) == theirs


async def test_an_organization_replaces_no_address_but_its_own(acme: TenantHandle, globex: TenantHandle) -> None:
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        ask = "SELECT platform.replace_owner_email($1, $2)"
        assert not await transaction.connection.fetchval(ask, globex.owner_email, acme.owner_email)
        assert not await transaction.connection.fetchval(ask, acme.owner_email, "")
        assert await transaction.connection.fetchval(ask, acme.owner_email, acme.owner_email)


async def _owner_addresses(world: World, tenant: TenantHandle) -> list[str]:
    answer = await world.operator.get(f"/platform/tenants/{tenant.slug}")
    assert answer.status_code == 200, answer.text
    return [answer.json()["ownerEmail"]]


async def test_the_address_can_be_used_anew_by_somebody_else(world: World, acme: TenantHandle) -> None:
    first = await add(acme)
    assert (await erase(acme, first.id)).status_code == 204
    login = {"tenant": acme.slug, "email": EMAIL, "password": PASSWORD}
    assert (await world.http.post("/api/auth/login", json=login)).status_code == 401
    assert (await acme.get(f"/api/users/{first.id}")).status_code == 404
    second = await add(acme, roles=[])
    assert second.id != first.id
    me = (await second.get("/api/users/me")).json()
    assert (me["roles"], me["teams"]) == ([], [])
    assert (await second.get("/api/notifications")).json()["total"] == 0
    assert (await first.get("/api/users/me")).status_code == 401


async def test_an_erasure_is_confirmed_by_the_address_and_by_nothing_else(acme: TenantHandle) -> None:
    person = await add(acme)
    for typed in ("somebody@people.example", acme.owner_email, EMAIL[1:], NAME, "x"):
        refused = await erase(acme, person.id, typed)
        assert refused.status_code == 422, typed
        assert refused.json()["errors"][0]["field"] == "email"
    assert (await acme.post(f"/api/users/{person.id}/erase", json={})).status_code == 422
    assert (await acme.get(f"/api/users/{person.id}")).status_code == 200
    assert "user.erased" not in await names_of_events(acme)
    assert (await erase(acme, person.id, EMAIL.upper())).status_code == 204
    assert (await erase(acme, person.id)).status_code == 404


async def test_nobody_erases_whoever_may_do_more_nor_themselves_without_a_password(acme: TenantHandle) -> None:
    admin = await acme.add_user("admin", "admin")
    refused = await erase(admin, acme.id, acme.owner_email)
    assert refused.status_code == 403
    assert (await erase(admin, admin.id, f"admin@{acme.slug}.example")).status_code == 403
    member = await acme.add_user("member", "member")
    assert (await erase(member, member.id, f"member@{acme.slug}.example")).status_code == 403
    assert (await admin.get("/api/users/me")).status_code == 200


async def test_a_wrong_password_erases_nobody_and_cannot_be_guessed(world: World, acme: TenantHandle) -> None:
    person, bob = await add(acme), await acme.add_user("bob", "member")
    codes = []
    for number in range(world.settings.login_failures + 1):
        answer = await person.post("/api/users/me/erase", json={"password": f"guess {number}"})
        codes.append(answer.status_code)
    assert codes == [422] * world.settings.login_failures + [429]
    right = await person.post("/api/users/me/erase", json={"password": PASSWORD})
    assert right.status_code == 429
    assert int(right.headers["Retry-After"]) >= 1
    # Others are not held up, and it is no brake on logging in.
    assert (await bob.post("/api/users/me/erase", json={"password": PASSWORD})).status_code == 204
    await world.log_in(acme.slug, EMAIL)


async def test_without_a_password_there_is_nothing_to_confirm_it_by(acme: TenantHandle) -> None:
    person = await add(acme)
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.session.execute(
            text("UPDATE user_account SET hashed_password = NULL WHERE id = :id"), {"id": person.id}
        )
    answer = await person.post("/api/users/me/erase", json={"password": PASSWORD})
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/no-password")
    assert (await erase(acme, person.id)).status_code == 204


async def test_a_password_that_was_changed_meanwhile_confirms_nothing(acme: TenantHandle) -> None:
    person = await add(acme)
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        people: PeopleService = await provide_people(db_session=transaction.session)
        with pytest.raises(ValidationFailedException) as refused:
            await people.erase(person.id, hashed_password="of before")  # type: ignore[arg-type]
    assert [error.field for error in refused.value.errors] == ["password"]
    assert (await person.get("/api/users/me")).status_code == 200


async def test_the_last_owner_is_not_erased(acme: TenantHandle) -> None:
    answer = await acme.post("/api/users/me/erase", json={"password": PASSWORD})
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/last-owner")
    second = await acme.add_user("second", "owner")
    assert (await acme.post("/api/users/me/erase", json={"password": PASSWORD})).status_code == 204
    assert (await second.post("/api/users/me/erase", json={"password": PASSWORD})).status_code == 409
    assert await _owners(acme) == 1


async def test_of_many_owners_who_erase_one_another_at_once_one_stays(acme: TenantHandle) -> None:
    others = [await acme.add_user(f"owner-{number}", "owner") for number in range(3)]
    answers = await asyncio.gather(
        *(each.post("/api/users/me/erase", json={"password": PASSWORD}) for each in (acme, *others))
    )
    assert sorted(answer.status_code for answer in answers) == [204, 204, 204, 409]
    assert await _owners(acme) == 1


async def test_the_only_owner_of_a_team_is_erased_once_somebody_has_it(acme: TenantHandle) -> None:
    person, bob = await add(acme), await acme.add_user("bob", "member")
    red = (await person.post("/api/teams", json={"name": "Red"})).json()
    for refused in (
        await erase(acme, person.id),
        await person.post("/api/users/me/erase", json={"password": PASSWORD}),
    ):
        assert (refused.status_code, refused.json()["type"]) == (409, "/problems/only-team-owner")
        assert [team["slug"] for team in refused.json()["teams"]] == ["red"]
    wanted = {"password": PASSWORD, "successorId": str(bob.id)}
    assert (await person.post("/api/users/me/erase", json=wanted)).status_code == 204
    assert await roles_in(acme, red) == {str(bob.id): "owner"}


async def test_whoever_is_told_of_it_are_those_who_could_have_done_it(acme: TenantHandle) -> None:
    admin, member = await acme.add_user("admin", "admin"), await acme.add_user("member", "member")
    person = await add(acme)
    assert (await erase(acme, person.id)).status_code == 204
    async with open_mail_server() as server:
        await post(acme, server)

    async def told(who: Caller) -> list[str]:
        items = (await who.get("/api/notifications")).json()["items"]
        return [each["subject"] for each in items if each["kind"] == "user.erased"]

    assert [await told(who) for who in (admin, member, acme)] == [[str(person.id)], [], []]


async def test_what_is_being_added_at_the_same_moment_is_erased_or_refused(world: World, acme: TenantHandle) -> None:
    """Not by luck: the key is seen waiting while the erasure has not committed."""
    person = await add(acme)
    assert person.id is not None
    async with world.database.transaction(acme.context.write_scope) as transaction:
        people: PeopleService = await provide_people(db_session=transaction.session)
        await people.erase(person.id)
        waits = asyncio.create_task(person.post("/api/api-keys", json={"name": NAME, "scopes": []}))
        await _is_blocked_by(world, await transaction.connection.fetchval("SELECT pg_backend_pid() WHERE $1", True))
        assert not waits.done()
    answer = await waits
    assert 400 <= answer.status_code < 500, answer.text
    async with world.database.transaction(acme.context.read_scope) as transaction:
        assert (await transaction.session.scalars(select(ApiKey).where(ApiKey.user_id == person.id))).all() == []
        assert (await transaction.session.scalars(select(User).where(User.id == person.id))).all() == []


async def test_an_erasure_that_is_refused_halfway_has_erased_nothing(acme: TenantHandle) -> None:
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        people: PeopleService = await provide_people(db_session=transaction.session)
        with pytest.raises(ConflictException):
            await people.erase(acme.id)  # type: ignore[arg-type]
    assert (await acme.get("/api/users/me")).status_code == 200
    assert "user.erased" not in await names_of_events(acme)
