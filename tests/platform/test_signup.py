"""Strangers make organizations: once they have read a mail, once each, and not as many as they like."""

from __future__ import annotations

import asyncio
import datetime
import itertools
from collections.abc import AsyncIterator
from email import message_from_bytes
from email.policy import default
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import func, select, text, update

from tenantry.platform.audit.models import AuditEntry
from tenantry.platform.signup.jobs import forget_expired_sign_ups
from tenantry.platform.signup.models import SignUp
from tenantry.tenancy.models import Tenant
from tests.mail.support import CONTROL
from tests.mailserver import MailServer, open_mail_server
from tests.platform.strangers import open_door, platform_box, platform_post, platform_waiting, sign_up
from tests.world import PASSWORD, World

INVALID = (400, "/problems/signup-invalid")
TAKEN = (409, "/problems/slug-taken")
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
def name() -> str:
    """Of an organization, and of somebody, that no other test has."""
    return f"sprocket-{next(_numbers)}-{uuid4().hex[:6]}"


def problem_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"]


async def token_of(api: World, server: MailServer, slug: str, **fields: Any) -> str:
    """Sign up, and take the token out of the mail."""
    email = f"ann@{slug}.example"
    answer = await sign_up(api, email, organization=slug.title(), slug=slug, **fields)
    assert answer.status_code == 202, answer.text
    [mail] = await platform_post(api, server, email)
    assert mail.link.startswith("https://www.app.example.com/confirm-sign-up#token=sgn_")
    return mail.token


async def confirm(api: World, token: str, **fields: object) -> httpx.Response:
    return await api.http.post("/api/signup/confirm", json={"token": token, "password": PASSWORD, **fields})


async def made(api: World, answer: httpx.Response, token: str) -> dict[str, Any]:
    """What was made: asked again for, as the answer says, while the provisioner is at it."""
    async with asyncio.timeout(60):
        while answer.status_code == 202:
            await asyncio.sleep(0.1)
            answer = await confirm(api, token)
    assert answer.status_code == 201, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def count_of(api: World, slug: str) -> int:
    async with api.database.transaction(CONTROL) as transaction:
        statement = select(func.count()).select_from(Tenant).where(Tenant.slug == slug)
        return await transaction.session.scalar(statement) or 0


async def change(api: World, slug: str, **values: Any) -> None:
    async with api.database.transaction(CONTROL) as transaction:
        await transaction.session.execute(update(SignUp).where(SignUp.slug == slug).values(**values))


def ago(seconds: int) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)


async def test_a_stranger_makes_an_organization_and_is_its_owner_with_a_verified_address(
    api: World, server: MailServer, name: str
) -> None:
    token = await token_of(api, server, name, name="Ann")
    assert await count_of(api, name) == 0
    body = await made(api, await confirm(api, token), token)
    assert (body["slug"], body["name"], body["email"]) == (name, name.title(), f"ann@{name}.example")
    assert (body["status"], body["ownerInvitation"]) == ("active", None)
    ann = await api.log_in(name, f"ann@{name}.example")
    me = (await ann.get("/api/users/me")).json()
    assert (me["name"], me["isVerified"]) == ("Ann", True)
    assert [role["slug"] for role in me["roles"]] == ["owner"]
    shown = (await api.operator.get(f"/platform/tenants/{name}")).json()
    assert shown["plan"] == api.settings.signup_plan


async def test_the_trail_says_who_was_there_by_ids_alone(api: World, server: MailServer, name: str) -> None:
    token = await token_of(api, server, name)
    body = await made(api, await confirm(api, token), token)
    async with api.database.transaction(CONTROL) as transaction:
        session = transaction.session
        found = await session.scalar(select(SignUp.id).where(SignUp.slug == name))
        [asked] = await session.scalars(select(AuditEntry).where(AuditEntry.target == str(found)))
        [created] = await session.scalars(
            select(AuditEntry).where(
                AuditEntry.tenant_id == UUID(body["tenantId"]), AuditEntry.action == "tenant.create"
            )
        )
    assert (asked.actor, asked.action, asked.details) == ("sign-up", "sign-up.request", {})
    assert (created.actor, created.details) == (f"sign-up:{found}", {"plan": "free"})


async def test_the_link_lies_in_the_development_outbox_and_nowhere_else(api: World, name: str) -> None:
    email = f"ann@{name}.example"
    answer = await sign_up(api, email, organization="Umbrella", slug=name)
    assert answer.status_code == 202
    [job] = [job for job in await platform_waiting(api) if job.arguments["about"] == answer.json()["id"]]
    await platform_box(api, None).drain(None)
    folder = api.settings.home / "mail"
    mails = [message_from_bytes(path.read_bytes(), policy=default) for path in folder.rglob("*.eml")]
    [mail] = [mail for mail in mails if mail["To"] == email]
    assert mail["Subject"] == "Confirm your address at Tenantry"
    body = mail.get_body(("plain",))
    assert body is not None
    [link] = [word for word in body.get_content().split() if word.startswith("http")]
    token = link.partition("#token=")[2]
    # What waited had neither the address nor the token in it, and the row has its digest alone.
    assert email not in str(job)
    assert token not in str(job)
    async with api.database.transaction(CONTROL) as transaction:
        row = await transaction.session.execute(text("SELECT signup::text FROM signup WHERE slug = :s"), {"s": name})
        assert token.rpartition("_")[2] not in row.scalar_one()


async def test_confirmed_again_it_is_the_same_organization(api: World, server: MailServer, name: str) -> None:
    token = await token_of(api, server, name)
    first = await made(api, await confirm(api, token), token)
    # As after an answer that was lost; whatever else is said then, nothing is changed.
    again = await confirm(api, token, password="another good password", slug=f"{name}-other")
    assert again.status_code == 201
    assert again.json() == first
    await api.log_in(name, f"ann@{name}.example", PASSWORD)
    assert await count_of(api, f"{name}-other") == 0


async def test_of_two_who_confirm_at_once_both_get_the_one_organization(
    api: World, server: MailServer, name: str
) -> None:
    token = await token_of(api, server, name)
    answers = await asyncio.gather(*(confirm(api, token) for _ in range(4)))
    bodies = [await made(api, answer, token) for answer in answers]
    assert len({body["tenantId"] for body in bodies}) == 1
    assert await count_of(api, name) == 1


async def test_a_process_that_fails_while_it_makes_the_organization_leaves_the_link_good(
    api: World, server: MailServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sign-up and organization are one transaction: what ends it half-way leaves both as they were."""
    token = await token_of(api, server, name)

    def die(*_: object, **__: object) -> None:
        raise RuntimeError("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(api.app.state.tenant_creator, "_owner", die)
        assert (await confirm(api, token)).status_code == 500
    assert await count_of(api, name) == 0
    # Another process takes it up, as after a restart.
    async with open_door(api) as restarted:
        body = await made(restarted, await confirm(restarted, token), token)
    assert body["slug"] == name


async def test_without_a_password_the_owner_is_shown_an_invitation_and_mailed_it(
    api: World, server: MailServer, name: str
) -> None:
    token = await token_of(api, server, name)
    answer = await confirm(api, token, password=None)
    invitation = answer.json()["ownerInvitation"]
    assert invitation.startswith("inv_")
    body = await made(api, answer, token)
    assert body["tenantId"] == answer.json()["tenantId"]
    await api.app.state.registry.refresh()
    tenant = api.app.state.registry.by_id(UUID(body["tenantId"]))
    await platform_box(api, server).drain(tenant)
    [mail] = [mail for mail in server.taken if "accept-invitation" in mail.link]
    assert mail.recipients == (f"ann@{name}.example",)
    assert mail.token == invitation
    accepted = await api.http.post("/api/auth/invitations/accept", json={"token": invitation, "password": PASSWORD})
    assert accepted.status_code == 200, accepted.text
    assert accepted.json()["accessToken"]


async def test_a_slug_follows_from_the_name_and_gets_a_number_where_it_is_taken(
    api: World, server: MailServer, name: str
) -> None:
    slugs = []
    for number in range(3):
        answer = await sign_up(api, f"ann{number}@{name}.example", organization=name.title())
        assert answer.status_code == 202
        slugs.append(answer.json()["slug"])
    assert slugs == [name, f"{name}-2", f"{name}-3"]
    reserved = await sign_up(api, f"ann4@{name}.example", organization="Admin")
    assert reserved.json()["slug"].startswith("admin-")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"slug": "admin"}, "slug"),
        ({"slug": f"purged-{'0' * 32}"}, "slug"),
        ({"slug": "Not a slug"}, "slug"),
        ({"organization": "…"}, "slug"),
        ({"organization": " "}, "organization"),
        ({"email": "nobody"}, "email"),
        ({"plan": "enterprise"}, "plan"),
    ],
)
async def test_what_cannot_be_is_refused_by_its_field_and_nothing_is_written(
    api: World, name: str, fields: dict[str, str], field: str
) -> None:
    body = {"email": f"ann@{name}.example", "organization": name, **fields}
    answer = await api.http.post("/api/signup", json=body)
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    async with api.database.transaction(CONTROL) as transaction:
        assert (
            await transaction.session.scalar(select(SignUp.id).where(SignUp.email.endswith(f"{name}.example"))) is None
        )


async def test_a_slug_that_an_organization_has_is_taken(api: World, name: str, world: World) -> None:
    acme = await world.create_tenant("acme")
    assert problem_of(await sign_up(api, f"ann@{name}.example", organization="Acme", slug=acme.slug)) == TAKEN


async def test_of_two_who_want_one_slug_at_once_one_has_it_kept(api: World, name: str) -> None:
    answers = await asyncio.gather(
        *(sign_up(api, f"{who}@{name}.example", organization=who, slug=name) for who in ("ann", "bob", "cid"))
    )
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409]
    named = await asyncio.gather(*(sign_up(api, f"{who}@{name}.example", organization=f"{name}-x") for who in "ab"))
    assert {answer.json()["slug"] for answer in named} == {f"{name}-x", f"{name}-x-2"}


async def test_a_slug_is_kept_for_a_while_and_once_a_day(api: World, server: MailServer, name: str) -> None:
    """Whoever asks for it every half hour, under whatever address, does not keep it from others."""
    ann = await token_of(api, server, name)
    assert problem_of(await sign_up(api, f"bob@{name}.example", organization="Bob", slug=name)) == TAKEN
    await change(api, name, held_until=ago(1))
    answer = await sign_up(api, f"bob@{name}.example", organization="Bob", slug=name)
    assert answer.status_code == 202
    assert answer.json()["heldUntil"] < answer.json()["expiresAt"]
    # It is not kept for Bob, so that whoever is first gets it.
    [mail] = await platform_post(api, server, f"bob@{name}.example")
    await made(api, await confirm(api, ann), ann)
    late = await confirm(api, mail.token)
    assert problem_of(late) == TAKEN
    # The link stays good, for another name.
    token = mail.token
    other = await made(api, await confirm(api, token, slug=f"{name}-bob"), token)
    assert (other["slug"], other["name"]) == (f"{name}-bob", "Bob")


async def test_nobody_confirms_with_a_slug_that_is_kept_for_another(api: World, server: MailServer, name: str) -> None:
    await token_of(api, server, name)
    bob = await token_of(api, server, f"{name}-bob")
    assert problem_of(await confirm(api, bob, slug=name)) == TAKEN
    assert (await confirm(api, bob, slug="admin")).json()["errors"][0]["field"] == "slug"
    assert await count_of(api, name) == 0


async def test_the_mail_can_be_asked_for_again_by_whoever_was_told_the_id(
    api: World, server: MailServer, name: str
) -> None:
    first = await sign_up(api, f"anm@{name}.example", organization="Ann", slug=name)
    [typo] = await platform_post(api, server, f"anm@{name}.example")
    again = await sign_up(api, f"ann@{name}.example", organization="Ann", slug=name, replaces=first.json()["id"])
    assert again.status_code == 202
    assert again.json()["heldUntil"] == first.json()["heldUntil"]
    [mail] = await platform_post(api, server, f"ann@{name}.example")
    assert problem_of(await confirm(api, typo.token)) == INVALID
    await made(api, await confirm(api, mail.token), mail.token)
    # Replacing does not keep a slug for longer, nor anew.
    taken = await sign_up(api, f"x@{name}.example", organization="X", slug=f"{name}-x")
    moved = await sign_up(api, f"x@{name}.example", organization="X", slug=f"{name}-y", replaces=taken.json()["id"])
    back = await sign_up(api, f"x@{name}.example", organization="X", slug=f"{name}-x", replaces=moved.json()["id"])
    assert datetime.datetime.fromisoformat(back.json()["heldUntil"]) <= datetime.datetime.now(datetime.UTC)


async def test_a_link_that_was_replaced_is_not_mailed_any_more(api: World, server: MailServer, name: str) -> None:
    email = f"ann@{name}.example"
    first = await sign_up(api, email, organization="Ann", slug=name)
    again = await sign_up(api, email, organization="Ann", slug=name, replaces=first.json()["id"])
    mails = await platform_post(api, server, email)
    assert len(mails) == 1
    assert UUID(hex=mails[0].token.split("_")[1]) == UUID(again.json()["id"])


async def test_what_is_expired_foreign_or_none_is_answered_alike(
    api: World, server: MailServer, name: str, world: World
) -> None:
    acme = await world.create_tenant("acme")
    token = await token_of(api, server, name)
    await change(api, name, expires_at=ago(1))
    attempts = [
        token,
        token.replace("sgn_", "inv_"),
        f"sgn_{uuid4().hex}_{'0' * 64}",
        f"{token.rpartition('_')[0]}_{'0' * 64}",
        acme.refresh_token,
        "garbage",
    ]
    answers = [await confirm(api, attempt) for attempt in attempts]
    assert {problem_of(answer) for answer in answers} == {INVALID}
    assert len({answer.json()["detail"] for answer in answers}) == 1


async def test_a_password_that_is_too_weak_leaves_the_link_good(api: World, server: MailServer, name: str) -> None:
    token = await token_of(api, server, name)
    for weak in ("short", f"ann@{name}.example"):
        answer = await confirm(api, token, password=weak)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "password")
    await made(api, await confirm(api, token), token)


async def test_the_answer_tells_nothing_of_the_address(api: World, world: World, name: str) -> None:
    acme = await world.create_tenant("acme")
    answers = [
        await sign_up(api, email, organization=f"{name}-{number}")
        for number, email in enumerate((acme.owner_email, f"nobody@{name}.example", acme.owner_email))
    ]
    assert {answer.status_code for answer in answers} == {202}
    assert {frozenset(answer.json()) for answer in answers} == {frozenset({"id", "slug", "heldUntil", "expiresAt"})}


async def test_a_deployment_has_no_sign_up_unless_it_says_so(world: World, name: str) -> None:
    assert world.settings.signup is False
    for path, body in (
        ("", {"email": f"ann@{name}.example", "organization": name}),
        ("/confirm", {"token": f"sgn_{uuid4().hex}_{'0' * 64}", "password": PASSWORD}),
    ):
        answer = await world.http.post(f"/api/signup{path}", json=body)
        assert problem_of(answer) == (403, "/problems/signup-closed")


async def test_without_mail_or_a_plan_it_is_not_available(
    world: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wish = {"organization": name, "slug": name}
    async with open_door(world) as api:
        settings = api.settings.model_copy(update={"mail_url": None})
        monkeypatch.setattr(api.app.state.signups, "_settings", settings)
        assert problem_of(await sign_up(api, f"ann@{name}.example", **wish)) == (503, "/problems/mail-not-configured")
    async with open_door(world, signup_plan="nobodys") as api:
        answer = await sign_up(api, f"ann@{name}.example", **wish)
        assert problem_of(answer) == (503, "/problems/signup-unavailable")


async def test_a_plan_that_went_meanwhile_leaves_the_link_good(world: World, server: MailServer, name: str) -> None:
    async with open_door(world) as api:
        token = await token_of(api, server, name)
    async with open_door(world, signup_plan="nobodys") as api:
        assert problem_of(await confirm(api, token)) == (503, "/problems/signup-unavailable")
    async with open_door(world) as api:
        await made(api, await confirm(api, token), token)


async def test_the_organization_is_made_by_the_provisioner_where_no_schema_is_ready(
    world: World, server: MailServer, name: str
) -> None:
    """Asked again meanwhile, and after: one organization."""
    async with open_door(world, provision_wait=0.01) as api:
        token = await token_of(api, server, name)
        async with api.database.transaction(CONTROL) as transaction:
            # Nobody else gets at the pool's schemas until this transaction ends.
            await transaction.session.execute(text("SELECT id FROM warm_schema FOR UPDATE"))
            answer = await confirm(api, token)
            assert answer.status_code == 202, answer.text
            assert (answer.json()["status"], answer.headers["Retry-After"]) == ("provisioning", "1")
        body = await made(api, answer, token)
        assert body["tenantId"] == answer.json()["tenantId"]
        await api.log_in(name, f"ann@{name}.example")
        assert await count_of(api, name) == 1


async def test_expired_sign_ups_are_forgotten_those_of_today_stay(api: World, server: MailServer, name: str) -> None:
    await token_of(api, server, name)
    await token_of(api, server, f"{name}-old")
    await token_of(api, server, f"{name}-replaced")
    ttl = api.settings.signup_ttl
    await change(api, f"{name}-old", created_at=ago(ttl + 60), expires_at=ago(60))
    await change(api, f"{name}-replaced", expires_at=ago(60))
    box = platform_box(api, server)
    async with api.database.transaction(CONTROL) as transaction:
        await forget_expired_sign_ups.enqueue(transaction.session)
    await box.drain(None)
    async with api.database.transaction(CONTROL) as transaction:
        left = set(await transaction.session.scalars(select(SignUp.slug).where(SignUp.slug.startswith(name))))
    assert left == {name, f"{name}-replaced"}


async def test_an_organization_that_is_gone_is_not_answered(api: World, server: MailServer, name: str) -> None:
    token = await token_of(api, server, name)
    await made(api, await confirm(api, token), token)
    await change(api, name, tenant_id=uuid4())
    assert problem_of(await confirm(api, token)) == INVALID
