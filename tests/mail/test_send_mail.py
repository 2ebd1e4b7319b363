"""Mail as a job: at least once and known by its id, without an address or a secret in what waits."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import delete, update

from tenantry.domain.identity import invitations
from tenantry.domain.identity.users.models import User
from tenantry.jobs.definition import Discard, Hopeless, Retry
from tenantry.jobs.models import OutboxEntry
from tenantry.kernel.errors import UnavailableException
from tenantry.mail.definition import MailCatalogue, current_mails, require_mail, use_mails, using_mails
from tenantry.mail.jobs import send_mail, send_platform_mail
from tests.mail.support import CONTROL, box_of, post, send_once, waiting
from tests.mailserver import MailServer, open_mail_server
from tests.world import TenantHandle


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with open_mail_server() as opened:
        yield opened


async def invite(tenant: TenantHandle, name: str = "ann", **fields: Any) -> dict[str, Any]:
    body = {"email": f"{name}@{tenant.slug}.example", **fields}
    made = await tenant.post("/api/invitations", json=body)
    assert made.status_code == 201, made.text
    return made.json()  # type: ignore[no-any-return]


async def test_what_waits_has_neither_the_address_nor_the_token_in_it(acme: TenantHandle, server: MailServer) -> None:
    await invite(acme)
    async with acme.world.database.transaction(CONTROL) as transaction:
        rows = await transaction.connection.fetch("SELECT * FROM platform.outbox WHERE name = $1", "send_mail")
    [row] = [row for row in rows if row["tenant_id"] == acme.tenant_id]
    stored = json.dumps([str(value) for value in row.values()])
    [mail] = await post(acme, server)
    assert mail.token.startswith(f"inv_{acme.tenant_id.hex}_")
    assert mail.token not in stored
    assert mail.token.rpartition("_")[2] not in stored
    assert "@" not in stored
    assert set(row["arguments"]) == {"mail", "about", "sealed"}


async def test_every_copy_of_a_mail_has_the_same_id_and_the_same_link(acme: TenantHandle, server: MailServer) -> None:
    await invite(acme)
    [job] = await waiting(acme)
    for number in (1, 2):
        # The worker died after the server had taken the mail, and before it could say so.
        await send_once(acme, server, job, number=number)
    await post(acme, server)
    assert len(server.taken) == 3
    assert {str(mail.message["Message-ID"]) for mail in server.taken} == {f"<{job.id}@mail.example>"}
    assert len({mail.link for mail in server.taken}) == 1
    assert await waiting(acme) == []
    accepted = await acme.http.post(
        "/api/auth/invitations/accept", json={"token": server.taken[0].token, "password": "correct horse battery"}
    )
    assert accepted.status_code == 200


async def test_each_organization_writes_in_its_own_name_to_its_own_people(
    acme: TenantHandle, globex: TenantHandle, server: MailServer
) -> None:
    # The same person, in both.
    for tenant in (acme, globex):
        await invite(tenant, email="ann@people.example")
    for tenant in (acme, globex):
        [mail] = await post(tenant, server)
        assert mail.recipients == ("ann@people.example",)
        assert mail.link.startswith(f"https://{tenant.slug}.app.example.com/accept-invitation#token=")
        assert mail.message["Subject"] == f"You are invited to {tenant.context.name}"
        assert mail.message["Auto-Submitted"] == "auto-generated"
        assert str(mail.message["From"]) == "Tenantry <no-reply@mail.example>"
        assert tenant.tenant_id.hex in mail.token
    refused = await acme.http.post(
        "/api/auth/invitations/accept",
        json={"token": server.taken[1].token, "password": "correct horse battery"},
        headers={"Host": f"{acme.slug}.example.com"},
    )
    assert refused.status_code == 400


async def test_the_name_of_an_organization_is_no_markup_and_no_header(acme: TenantHandle, server: MailServer) -> None:
    renamed = await acme.world.operator.patch(f"/platform/tenants/{acme.slug}", json={"name": "<b>A&B</b>\u202e, Inc."})
    assert renamed.status_code == 200, renamed.text
    await acme.world.app.state.registry.refresh()
    await invite(acme)
    [mail] = await post(acme, server)
    assert mail.message["Subject"] == "You are invited to <b>A&B</b>, Inc."
    assert "&lt;b&gt;A&amp;B&lt;/b&gt;, Inc." in mail.part("html")
    assert "<b>A&B" not in mail.part("html")


async def test_the_address_is_the_one_that_the_account_has_when_it_is_sent(
    acme: TenantHandle, server: MailServer
) -> None:
    invitation = await invite(acme)
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.session.execute(
            update(User).where(User.id == invitation["userId"]).values(email="new@people.example")
        )
    [mail] = await post(acme, server)
    assert mail.recipients == ("new@people.example",)


async def test_nobody_writes_to_a_person_who_is_gone(acme: TenantHandle, server: MailServer) -> None:
    invitation = await invite(acme)
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.session.execute(delete(User).where(User.id == invitation["userId"]))
    [job] = await waiting(acme)
    with pytest.raises(Discard):
        await send_once(acme, server, job)
    assert await post(acme, server) == []
    assert await waiting(acme) == []


async def test_a_server_that_is_away_is_asked_for_half_a_day(acme: TenantHandle, server: MailServer) -> None:
    await invite(acme)
    server.on_data = lambda _: "451 4.3.0 try again later"
    [job] = await waiting(acme)
    pauses = []
    for number in range(1, send_mail.retries):
        with pytest.raises(Retry, match=r"451 4\.3\.0") as caught:
            await send_once(acme, server, job, number=number)
        pauses.append(caught.value.after)
    assert 24 <= pauses[0] <= 36
    assert max(pauses) <= 4 * 3600 * 1.2
    assert sum(pauses) > 9 * 3600
    server.on_data = lambda _: "250 OK"
    assert len(await post(acme, server)) == 1


async def test_a_recipient_that_does_not_exist_ends_the_matter(acme: TenantHandle, server: MailServer) -> None:
    await invite(acme)
    server.on_recipient = lambda address: f"550 5.1.1 <{address}> is unknown here"
    [job] = await waiting(acme)
    with pytest.raises(Discard, match=r"550 5\.1\.1"):
        await send_once(acme, server, job)
    assert await post(acme, server) == []
    assert await waiting(acme) == []


async def test_a_mail_that_is_refused_for_good_is_dead_and_can_be_looked_at(
    acme: TenantHandle, server: MailServer
) -> None:
    await invite(acme)
    server.on_data = lambda _: "554 5.7.1 this is spam"
    [job] = await waiting(acme)
    with pytest.raises(Hopeless, match=r"554 5\.7\.1"):
        await send_once(acme, server, job)


async def test_no_address_and_no_token_is_logged_whatever_happens(
    acme: TenantHandle, server: MailServer, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    await invite(acme)
    [job] = await waiting(acme)
    said: list[str] = []
    with caplog.at_level(logging.DEBUG):
        for where, answer in (
            ("on_recipient", "550 5.1.1 <{}> unknown"),
            ("on_data", "554 no spam for {}"),
            ("on_data", "451 later, {}"),
            ("on_sender", "550 who is {}?"),
            ("on_data", "250 OK"),
        ):
            setattr(server, where, lambda *_, answer=answer: answer.format(f"ann@{acme.slug}.example"))
            try:
                await send_once(acme, server, job)
            except (Discard, Hopeless, Retry) as error:
                # All that a traceback would show.
                said.append("".join(traceback.format_exception(error)))
            for each in ("on_recipient", "on_data", "on_sender"):
                setattr(server, each, lambda _: "250 OK")
    assert len(said) == 4
    [mail] = server.taken
    out, err = capfd.readouterr()
    # Without what the server logs, which is in this process as well.
    logged = [record.getMessage() for record in caplog.records if not record.name.startswith("mail.")]
    everything = "\n".join([*said, *logged, out, err])
    assert "mail sent" in everything
    assert f"ann@{acme.slug}" not in everything
    assert mail.token.rpartition("_")[2] not in everything


async def test_a_worker_without_a_mail_server_keeps_the_mail_waiting(acme: TenantHandle, server: MailServer) -> None:
    await invite(acme)
    [job] = await waiting(acme)
    with pytest.raises(Retry, match="TENANTRY_MAIL_URL is not set in this worker"):
        await send_once(acme, None, job)
    assert len(await post(acme, server)) == 1


async def test_a_mail_of_another_release_waits_for_its_workers(acme: TenantHandle, server: MailServer) -> None:
    await invite(acme)
    [job] = await waiting(acme)
    with (
        using_mails(MailCatalogue((), job=send_mail, platform_job=send_platform_mail)),
        pytest.raises(Retry, match="there is no mail 'invitation'"),
    ):
        await send_once(acme, server, job)


async def test_a_sealed_secret_is_worth_nothing_beside_another_row(
    acme: TenantHandle, globex: TenantHandle, server: MailServer
) -> None:
    for tenant in (acme, globex):
        await invite(tenant)
    [ours], [theirs] = await waiting(acme), await waiting(globex)
    async with acme.world.database.transaction(CONTROL) as transaction:
        await transaction.session.execute(
            update(OutboxEntry)
            .where(OutboxEntry.id == ours.id)
            .values(arguments={**ours.arguments, "sealed": theirs.arguments["sealed"]})
        )
    [job] = await waiting(acme)
    with pytest.raises(Hopeless, match="damaged, or of another"):
        await send_once(acme, server, job)
    assert server.taken == []


async def test_one_worker_sends_what_another_did_not(acme: TenantHandle, server: MailServer) -> None:
    for name in ("ann", "bob"):
        await invite(acme, name)
    server.on_recipient = lambda address: "450 4.2.1 busy" if address.startswith("ann@") else "250 OK"
    [first, second] = await waiting(acme)
    with pytest.raises(Retry):
        await send_once(acme, server, first)
    await send_once(acme, server, second, ends=True)
    assert [mail.recipients for mail in server.taken] == [(f"bob@{acme.slug}.example",)]
    server.on_recipient = lambda _: "250 OK"
    await box_of(acme, server).drain(acme.context)
    assert [mail.recipients[0].partition("@")[0] for mail in server.taken] == ["bob", "ann"]


def test_two_features_cannot_declare_one_mail() -> None:

    with pytest.raises(ValueError, match="declared twice"):
        MailCatalogue((invitations.FEATURE, invitations.FEATURE), job=send_mail, platform_job=send_platform_mail)


async def test_a_secret_without_a_vault_is_a_mistake_of_ours(acme: TenantHandle) -> None:
    mail = current_mails().mails["invitation"]
    async with acme.world.database.transaction(acme.context.write_scope) as transaction:
        with pytest.raises(TypeError, match="vault"):
            await mail.send(transaction.session, about=acme.tenant_id, secret="x")


def test_without_a_catalogue_nothing_is_sent_in_silence() -> None:
    before = use_mails(None)
    try:
        with pytest.raises(RuntimeError, match=r"import tenantry\.features"):
            current_mails()
    finally:
        use_mails(before)


def test_a_deployment_without_mail_says_so(acme: TenantHandle) -> None:

    with pytest.raises(UnavailableException) as caught:
        require_mail(acme.world.settings.model_copy(update={"mail_url": None}))
    assert caught.value.problem.slug == "mail-not-configured"
