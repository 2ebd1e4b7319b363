from __future__ import annotations

import asyncio
import re
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tenantry.features import TENANT_METADATA
from tenantry.kernel.security import AUDIENCE_PLATFORM, INVITATION, Credential, Tokens
from tenantry.platform.archives.catalog import Column, Shape, Table, read_shape
from tenantry.platform.archives.format import ArchiveTables
from tenantry.platform.lifecycle.copying import copy_tables
from tenantry.platform.operators.models import Operator
from tenantry.tenancy.context import ScopeTimes, control_scope
from tenantry.tenancy.migrations import head
from tests.platform.lifecycle.support import (
    SECRET,
    as_owner,
    carry_out,
    carry_out_failing,
    digests,
    found,
    of_catalog,
    run,
    tenant_row,
)
from tests.platform.support import as_admin
from tests.tree import TenantTree
from tests.world import PASSWORD, Caller, World


def _clone(**more: Any) -> dict[str, Any]:
    return {"slug": "acme-sandbox", "name": "Acme (sandbox)", "maskEmails": False, **more}


async def _make(api: World, **more: Any) -> tuple[UUID, dict[str, Any]]:
    """A clone of acme, made; its id and the answer to whoever asked."""
    answer = await api.operator.post("/platform/tenants/acme/clone", json=_clone(**more))
    assert answer.status_code == 202, answer.text
    await carry_out(api)
    made = (await api.operator.get("/platform/tenants/acme-sandbox")).json()
    assert made["status"] == "active"
    return UUID(made["id"]), answer.json()


async def _text_of(api: World, tenant_id: UUID) -> str:
    """Every row of a tenant, as text."""
    found = []
    async with as_admin(api.addresses) as admin:
        for table in TENANT_METADATA.sorted_tables:
            rows = await admin.fetch(f'SELECT to_jsonb(t)::text AS row FROM "t_{tenant_id.hex}"."{table.name}" t')
            found += [row["row"] for row in rows]
    return "\n".join(found)


async def test_a_clone_has_the_rows_of_its_source_and_a_life_of_its_own(api: World) -> None:
    acme, globex = await found(api, "acme"), await found(api, "globex")
    held, neighbour = await digests(api, acme.id), await digests(api, globex.id)
    clone_id, answer = await _make(api)
    assert (answer["status"], answer["ownerInvitation"], answer["plan"]) == ("provisioning", None, "free")
    copied = await digests(api, clone_id)
    assert {name: copied[name] for name in copied.keys() - SECRET} == {
        name: held[name] for name in held.keys() - SECRET
    }
    assert {name: copied[name].rows for name in SECRET} == dict.fromkeys(SECRET, 0)
    assert await digests(api, acme.id) == held
    assert await digests(api, globex.id) == neighbour
    row = await tenant_row(api, clone_id)
    assert (row["name"], row["revision"], row["owner_email"]) == (
        "Acme (sandbox)",
        head("tenant"),
        "owner@acme.example",
    )
    # With one's own password to both, and what is done in one is not done in the other.
    owner = await api.log_in("acme-sandbox", "owner@acme.example")
    assert (await owner.post("/api/teams", json={"name": "Only here"})).status_code == 201
    assert (await owner.get("/api/teams")).json()["total"] == 3
    assert (await acme.owner.get("/api/teams")).json()["total"] == 2


async def test_a_masked_clone_keeps_nothing_that_says_who_somebody_is(api: World) -> None:
    acme = await found(api, "acme")
    async with as_admin(api.addresses) as admin:
        await admin.execute(
            f'UPDATE "{acme.schema}".user_account SET avatar_url = $1', "https://pictures.example/ann-of-acme.png"
        )
    clone_id, answer = await _make(api, maskEmails=True, ownerEmail="Dev@Tools.example", ownerName="Dee")
    everything = await _text_of(api, clone_id)
    for email in acme.people:
        assert email not in everything
    for word in ("@acme.example", "Ann of acme", "Bob of acme", "argon2", "pictures.example"):
        assert word not in everything
    assert "Team 0 of acme" in everything, "what no column is marked for is kept"
    async with as_admin(api.addresses) as admin:
        people = await admin.fetch(f'SELECT email, name, hashed_password FROM "t_{clone_id.hex}".user_account')
    masked = [person for person in people if person["email"].endswith("@masked.invalid")]
    assert len(masked) == len({person["email"] for person in masked}) == len(acme.people)
    assert all(re.fullmatch(r"user-[0-9a-f]{24}@masked\.invalid", person["email"]) for person in masked)
    assert {(person["name"], person["hashed_password"]) for person in masked} == {(None, None)}
    # Its owner alone gets in, by the invitation that was shown.
    assert str(Credential.parse(answer["ownerInvitation"], INVITATION).tenant_id) == str(clone_id)
    accepted = await api.http.post(
        "/api/auth/invitations/accept", json={"token": answer["ownerInvitation"], "password": PASSWORD}
    )
    assert accepted.status_code == 200, accepted.text
    owner = Caller(api.http, accepted.json()["accessToken"])
    me = (await owner.get("/api/users/me")).json()
    assert (me["email"], me["name"], [role["slug"] for role in me["roles"]]) == ("dev@tools.example", "Dee", ["owner"])
    assert (await owner.get("/api/teams")).json()["total"] == 2


async def test_masks_are_alike_within_a_copy_and_different_in_the_next(api: World) -> None:
    acme = await found(api, "acme")
    tables = ArchiveTables(
        frozenset(), {}, {"user_account": {"email": "email"}, "tag": {"slug": "name", "name": "name"}}
    )
    async with as_owner(api.addresses) as source, as_owner(api.addresses) as target:
        shape = await read_shape(source, acme.schema)
        wanted = Shape(shape.schema, shape.revision, _only(shape, "user_account", "tag"), ())
        seen = []
        for _ in range(2):
            transaction = target.transaction()
            await transaction.start()
            await target.execute(
                "CREATE SCHEMA copied;"
                f'CREATE TABLE copied.user_account (LIKE "{acme.schema}".user_account INCLUDING ALL);'
                f'CREATE TABLE copied.tag (LIKE "{acme.schema}".tag INCLUDING ALL)'
            )
            await copy_tables(source, target, shape=wanted, schema="copied", tables=tables, mask=True)
            emails = {row["email"] for row in await target.fetch("SELECT email FROM copied.user_account")}
            tag = await target.fetchrow("SELECT slug, name FROM copied.tag")
            await transaction.rollback()
            assert tag is not None
            # Equal or not, neither of them can be NULL: a text that tells nothing takes their place.
            assert re.fullmatch("masked-[0-9a-f]{24}", tag["slug"])
            seen.append((emails, tag["slug"]))
    assert len(seen[0][0]) == len(acme.people)
    assert not seen[0][0] & seen[1][0]
    assert seen[0][1] != seen[1][1]


def _only(shape: Shape, *names: str) -> tuple[Table, ...]:
    return tuple(table for table in shape.tables if table.name in names)


async def test_a_copy_that_ends_early_is_an_error_and_not_a_smaller_copy(api: World) -> None:
    acme = await found(api, "acme")
    column = Column("there_is_none", not_null=False, collated=False, key_position=None)
    wanted = Shape(acme.schema, "0001", (Table("tag", (column,)),), ())
    async with as_owner(api.addresses) as source, as_owner(api.addresses) as target:
        await target.execute("CREATE TEMPORARY TABLE tag (there_is_none text)")
        with pytest.raises(asyncpg.UndefinedColumnError):
            async with asyncio.timeout(20):
                await copy_tables(
                    source, target, shape=wanted, schema="pg_temp", tables=ArchiveTables.of(TENANT_METADATA), mask=False
                )
        assert await target.fetchval("SELECT count(*) FROM pg_temp.tag") == 0
        # And where it is the writer that cannot go on, the reader does not wait for it for ever.
        whole = _only(await read_shape(source, acme.schema), "tag")
        with pytest.raises(asyncpg.UndefinedColumnError):
            async with asyncio.timeout(20):
                await copy_tables(
                    source,
                    target,
                    shape=Shape(acme.schema, "0001", whole, ()),
                    schema="pg_temp",
                    tables=ArchiveTables.of(TENANT_METADATA),
                    mask=False,
                )


async def test_an_owner_of_the_clone_may_be_somebody_who_is_in_it_already(api: World) -> None:
    acme = await found(api, "acme")
    await _make(api, ownerEmail="ann@acme.example", ownerPassword="another password altogether")
    ann = await api.log_in("acme-sandbox", "ann@acme.example", "another password altogether")
    me = (await ann.get("/api/users/me")).json()
    assert sorted(role["slug"] for role in me["roles"]) == ["member", "owner"]
    assert me["name"] == "Ann of acme"
    there = (await acme.owner.get("/api/users", params={"search": "ann@"})).json()["items"][0]
    assert [role["slug"] for role in there["roles"]] == ["member"]
    await api.log_in("acme", "ann@acme.example")


async def test_a_suspended_tenant_that_is_behind_is_cloned_to_the_present_revision(
    api: World, tenant_tree: TenantTree
) -> None:
    acme = await found(api, "acme")
    assert (await api.operator.post("/platform/tenants/acme/suspend", json={})).is_success
    newest = tenant_tree.add()
    answer = await api.operator.post("/platform/tenants/acme/clone", json=_clone())
    assert answer.status_code == 202
    await carry_out(api)
    row = await tenant_row(api, UUID(answer.json()["id"]))
    assert (row["status"], row["revision"]) == ("active", newest)
    assert (await tenant_row(api, acme.id))["revision"] != newest


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"maskEmails": True}, 422, "ownerEmail"),
        ({"ownerPassword": PASSWORD}, 422, "ownerEmail"),
        ({"ownerEmail": "nobody"}, 422, "ownerEmail"),
        ({"ownerEmail": "a@b.example", "ownerPassword": "short"}, 422, "ownerPassword"),
        ({"slug": "admin"}, 422, "slug"),
        ({"plan": "gold"}, 422, "plan"),
        ({"slug": "globex"}, 409, None),
    ],
)
async def test_what_cannot_be_is_said_before_anything_is_written(
    api: World, body: dict[str, Any], status: int, field: str | None
) -> None:
    for slug in ("acme", "globex"):
        await _row(api, slug)
    answer = await api.operator.post("/platform/tenants/acme/clone", json=_clone(**body))
    assert answer.status_code == status, answer.text
    assert [error["field"] for error in answer.json().get("errors", [])] == ([] if field is None else [field])
    assert (await api.operator.get("/platform/tenants")).json()["total"] == 2


async def _row(api: World, slug: str) -> None:
    async with as_admin(api.addresses) as admin:
        await admin.execute(
            "INSERT INTO platform.tenant (id, slug, name, status, status_changed_at, plan, owner_email, revision,"
            " created_at, updated_at) VALUES (gen_random_uuid(), $1, $1, 'active', now(), 'free', 'a@b.example', $2,"
            " now(), now())",
            slug,
            head("tenant"),
        )


async def test_only_who_may_purge_makes_a_clone_that_is_not_masked(api: World) -> None:
    await _row(api, "acme")
    operator_id = uuid4()
    async with api.database.transaction(control_scope(ScopeTimes(), read_only=False)) as transaction:
        transaction.session.add(
            Operator(id=operator_id, email="op@platform.example", hashed_password="none", role="operator")
        )
    tokens = Tokens(api.app.state.keyring, api.settings.token_issuer)
    operator = Caller(api.http, tokens.issue(audience=AUDIENCE_PLATFORM, sub=operator_id, ttl=600)[0])
    refused = await operator.post("/platform/tenants/acme/clone", json=_clone())
    assert (refused.status_code, refused.json()["permission"]) == (403, "tenants:purge")
    masked = await operator.post(
        "/platform/tenants/acme/clone", json=_clone(maskEmails=True, ownerEmail="dev@tools.example")
    )
    assert masked.status_code == 202


async def test_a_clone_that_cannot_be_made_is_failed_without_a_schema_and_can_be_purged(
    api: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = await found(api, "acme")
    held = await digests(api, acme.id)

    async def broken(*_: Any, **__: Any) -> int:
        raise ConnectionResetError("the copy was cut off")

    monkeypatch.setattr("tenantry.platform.lifecycle.cloning.copy_tables", broken)
    answer = await api.operator.post("/platform/tenants/acme/clone", json=_clone())
    failed = await carry_out_failing(api, answer.headers["Location"].rpartition("/")[2])
    assert "the copy was cut off" in failed["error"]
    clone_id = UUID(answer.json()["id"])
    row = await tenant_row(api, clone_id)
    assert (row["status"], row["status_reason"], row["revision"]) == ("failed", "cloning failed", None)
    assert await of_catalog(api, clone_id) == []
    assert await digests(api, acme.id) == held
    monkeypatch.undo()
    await run(api, "/platform/tenants/acme-sandbox/purge", {"confirm": "acme-sandbox"})
    assert (await tenant_row(api, clone_id))["status"] == "purged"
