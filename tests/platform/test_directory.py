"""Who has forgotten their organization's name is mailed it; nobody else learns where they have accounts."""

from __future__ import annotations

import hashlib
import hmac
import itertools
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import ProgrammingError

from tenantry.domain.identity.users.models import User
from tenantry.platform.directory.jobs import repair_account_directory
from tenantry.platform.directory.service import repair
from tenantry.tenancy.database import owner_engine
from tenantry.tenancy.migrations import upgrade
from tenantry.tenancy.models import schema_name
from tests.databases import Template
from tests.mail.support import CONTROL
from tests.mailserver import MailServer, Taken, open_mail_server
from tests.platform.strangers import open_door, platform_box, platform_post, platform_waiting
from tests.platform.support import as_admin
from tests.world import PASSWORD, TenantHandle, World

_numbers = itertools.count(1)


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with open_mail_server() as opened:
        yield opened


@pytest.fixture
async def api(world: World) -> AsyncIterator[World]:
    async with open_door(world) as opened:
        yield opened


@pytest.fixture
def email() -> str:
    return f"ann{next(_numbers)}-{uuid4().hex[:6]}@people.example"


async def ask(api: World, email: str) -> tuple[int, bytes]:
    answer = await api.http.post("/api/auth/organizations", json={"email": email})
    return answer.status_code, answer.content


async def listed(api: World, server: MailServer, email: str) -> list[Taken]:
    assert (await ask(api, email))[0] == 202
    return await platform_post(api, server, email)


async def add(tenant: TenantHandle, email: str) -> dict[str, Any]:
    made = await tenant.post("/api/users", json={"email": email, "password": PASSWORD, "name": "Ann"})
    assert made.status_code == 201, made.text
    return made.json()  # type: ignore[no-any-return]


async def known(world: World, email: str) -> set[UUID]:
    """Where the directory says that the address has accounts."""
    async with world.database.transaction(CONTROL) as transaction:
        found = await transaction.session.scalars(select(func.platform.account_tenants(email).column_valued("id")))
        return set(found)


async def test_a_person_is_mailed_their_organizations_and_no_others(
    api: World, acme: TenantHandle, globex: TenantHandle, server: MailServer, email: str
) -> None:
    initech = await api.create_tenant("initech")
    for tenant in (acme, globex):
        await add(tenant, email)
    assert (await ask(api, email.upper()))[0] == 202
    [mail] = await platform_post(api, server, email)
    assert mail.message["Subject"] == "Your organizations at Tenantry"
    words = mail.part("plain").split()
    assert [word for word in words if word.startswith("http")] == [
        f"https://{tenant.slug}.app.example.com/login" for tenant in (acme, globex)
    ]
    for tenant in (acme, globex):
        assert f"({tenant.slug})" in words
        assert tenant.context.name in mail.part("html")
    assert initech.slug not in mail.content.decode()


async def test_an_organization_that_is_suspended_is_marked(
    api: World, acme: TenantHandle, globex: TenantHandle, server: MailServer, email: str
) -> None:
    for tenant in (acme, globex):
        await add(tenant, email)
    assert (await api.operator.post(f"/platform/tenants/{acme.slug}/suspend")).status_code == 200
    [mail] = await listed(api, server, email)
    assert mail.link == f"https://{globex.slug}.app.example.com/login"
    assert "It cannot be used at the moment." in mail.part("plain")


async def test_the_answer_is_the_same_for_whoever_has_no_account_and_so_is_the_work(
    api: World, acme: TenantHandle, server: MailServer, email: str
) -> None:
    await add(acme, email)
    nobody = f"nobody-{email}"
    before = {job.id for job in await platform_waiting(api)}
    answers = [await ask(api, address) for address in (email, nobody)]
    assert answers[0] == answers[1]
    assert answers[0][0] == 202
    jobs = [job for job in await platform_waiting(api) if job.id not in before]
    assert [set(job.arguments) for job in jobs] == [{"mail", "about", "sealed"}] * 2
    assert await platform_post(api, server, email)
    assert [mail for mail in server.taken if mail.recipients == (nobody,)] == []


@pytest.mark.parametrize("address", ["nobody", "a@b", "", "ann@people.example\n"])
async def test_what_is_no_address_is_refused(api: World, address: str) -> None:
    answer = await api.http.post("/api/auth/organizations", json={"email": address})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "email")


async def test_the_directory_follows_every_account(
    world: World, acme: TenantHandle, globex: TenantHandle, email: str
) -> None:
    """Whoever changes it, by whatever way: the table's own trigger sees to that."""
    user = await add(acme, email)
    await add(globex, email)
    assert await known(world, email) == {acme.tenant_id, globex.tenant_id}
    path = f"/api/users/{user['id']}"
    assert (await acme.patch(path, json={"isActive": False})).status_code == 200
    assert await known(world, email) == {globex.tenant_id}
    assert (await acme.patch(path, json={"isActive": True})).status_code == 200
    assert await known(world, email) == {acme.tenant_id, globex.tenant_id}
    async with world.database.transaction(acme.context.write_scope) as transaction:
        account = await transaction.session.get_one(User, UUID(user["id"]))
        account.email = f"new-{email}"
    assert await known(world, email) == {globex.tenant_id}
    assert await known(world, f"new-{email}") == {acme.tenant_id}
    async with world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.session.delete(await transaction.session.get_one(User, UUID(user["id"])))
    assert await known(world, f"new-{email}") == set()
    assert await known(world, email) == {globex.tenant_id}


async def test_what_is_not_committed_is_not_in_it(world: World, acme: TenantHandle, email: str) -> None:
    with pytest.raises(RuntimeError, match="on purpose"):  # noqa: PT012
        async with world.database.transaction(acme.context.write_scope) as transaction:
            transaction.session.add(User(email=email))
            await transaction.session.flush()
            raise RuntimeError("on purpose")
    assert await known(world, email) == set()


async def test_an_owner_and_an_invited_person_are_in_it(world: World, acme: TenantHandle, email: str) -> None:
    assert await known(world, acme.owner_email) == {acme.tenant_id}
    assert (await acme.post("/api/invitations", json={"email": email})).status_code == 201
    assert await known(world, email) == {acme.tenant_id}


async def test_it_is_a_keyed_hash_and_the_key_is_the_databases_own(world: World, acme: TenantHandle) -> None:
    async with as_admin(world.addresses) as admin:
        blocks = await admin.fetchrow("SELECT inner_block, outer_block FROM platform.account_directory_key")
        found = await admin.fetch("SELECT digest FROM platform.account_directory WHERE tenant_id = $1", acme.tenant_id)
    assert blocks is not None
    # The blocks are the key, and 54 or 92 (RFC 2104, section 2): with it any implementation says the same.
    key = bytes(octet ^ 0x36 for octet in blocks["inner_block"])[:32]
    assert bytes(octet ^ 0x5C for octet in blocks["outer_block"])[:32] == key
    expected = hmac.digest(key, acme.owner_email.encode(), hashlib.sha256)
    assert [row["digest"] for row in found] == [expected]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM platform.account_directory",
        "SELECT * FROM platform.account_directory_key",
        "DELETE FROM platform.account_directory",
        "SELECT * FROM platform.signup",
        "SELECT * FROM platform.public_request",
        "SELECT platform.account_tenants('ann@people.example')",
        "SELECT platform.keyed_digest('ann@people.example')",
        "SELECT platform.repair_account_directory(gen_random_uuid())",
    ],
)
async def test_no_tenant_can_read_it_write_it_or_ask_it(acme: TenantHandle, statement: str) -> None:
    with pytest.raises(ProgrammingError) as caught:
        async with acme.world.database.transaction(acme.context.write_scope) as transaction:
            await transaction.session.execute(text(statement))
    assert getattr(caught.value.orig, "sqlstate", None) == asyncpg.InsufficientPrivilegeError.sqlstate


@pytest.mark.parametrize("table", ["account_directory", "account_directory_key"])
async def test_not_even_the_control_plane_can_read_it(world: World, table: str) -> None:
    with pytest.raises(ProgrammingError, match="permission denied"):
        async with world.database.transaction(CONTROL) as transaction:
            await transaction.session.execute(text(f"SELECT * FROM {table}"))


async def test_a_tenant_cannot_stop_the_trigger(acme: TenantHandle) -> None:
    for statement in (
        "ALTER TABLE user_account DISABLE TRIGGER ALL",
        "DROP TRIGGER keep_account_directory ON user_account",
        "TRUNCATE user_account",
        "SET LOCAL session_replication_role TO replica",
    ):
        with pytest.raises(ProgrammingError):
            async with acme.world.database.transaction(acme.context.write_scope) as transaction:
                await transaction.session.execute(text(statement))


async def test_it_is_put_right_and_told_how_wrong_it_was(
    world: World, acme: TenantHandle, globex: TenantHandle, email: str
) -> None:
    await add(acme, email)
    await add(globex, email)
    async with as_admin(world.addresses) as admin:
        await admin.execute("DELETE FROM platform.account_directory WHERE tenant_id = $1", acme.tenant_id)
        await admin.execute(
            "INSERT INTO platform.account_directory (digest, tenant_id) VALUES (platform.keyed_digest($1), $2)",
            f"gone-{email}",
            globex.tenant_id,
        )

    def begin() -> Any:
        return session_of(world)

    assert await repair(begin, slugs=[acme.slug]) == 2
    assert await known(world, email) == {acme.tenant_id, globex.tenant_id}
    assert await known(world, f"gone-{email}") == {globex.tenant_id}
    # Every week, of all.
    box = platform_box(world, None)
    async with world.database.transaction(CONTROL) as transaction:
        await repair_account_directory.enqueue(transaction.session)
    assert 1 in await box.drain(None)
    assert await known(world, f"gone-{email}") == set()
    assert await repair(begin, slugs=[acme.slug, globex.slug]) == 0


class session_of:  # noqa: N801 - read as a function
    """A transaction in the control plane's scope, as a job begins one."""

    def __init__(self, world: World) -> None:
        self._opened = world.database.transaction(CONTROL)

    async def __aenter__(self) -> Any:
        return (await self._opened.__aenter__()).session

    async def __aexit__(self, *error: Any) -> Any:
        return await self._opened.__aexit__(*error)


async def test_accounts_that_were_there_before_it_are_in_it_after_the_migration(database_addresses: Template) -> None:
    """And rows that are copied in, as by a clone or an import, go by the same trigger."""
    tenant_id = uuid4()
    engine = owner_engine(database_addresses.owner_url)
    try:
        async with engine.connect() as connection:
            await connection.execute(text(f'CREATE SCHEMA "{schema_name(tenant_id)}"'))
            await connection.execute(text(f'SET LOCAL search_path TO "{schema_name(tenant_id)}"'))
            await connection.run_sync(upgrade, "tenant", "0014")
            insert = text(
                "INSERT INTO user_account (id, email, is_active, is_superuser, is_verified, joined_at, created_at,"
                " updated_at) VALUES (gen_random_uuid(), :email, :active, false, false, now(), now(), now())"
            )
            await connection.execute(insert, {"email": "old@people.example", "active": True})
            await connection.execute(insert, {"email": "gone@people.example", "active": False})
            await connection.run_sync(upgrade, "tenant")
            driver: Any = (await connection.get_raw_connection()).driver_connection
            columns = (
                "id",
                "email",
                "is_active",
                "is_superuser",
                "is_verified",
                "joined_at",
                "created_at",
                "updated_at",
            )
            now = await driver.fetchval("SELECT now()")
            await driver.copy_records_to_table(
                "user_account",
                records=[(uuid4(), "copied@people.example", True, False, False, now, now, now)],
                columns=columns,
            )
            found = {
                name: await driver.fetchval("SELECT platform.account_tenants($1)", f"{name}@people.example")
                for name in ("old", "gone", "copied")
            }
            await connection.rollback()
    finally:
        await engine.dispose()
    assert found == {"old": tenant_id, "gone": None, "copied": tenant_id}
