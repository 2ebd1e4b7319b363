"""The owner of an organization that an operator makes is mailed their invitation, in the creation's transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tenantry.jobs.testing import Enqueued
from tenantry.mail.jobs import send_mail
from tenantry.tenancy.context import ScopeTimes, TenantContext
from tenantry.tenancy.plan import PlanLimits
from tests.databases import Template
from tests.mailserver import MailServer, open_mail_server
from tests.platform.strangers import platform_box
from tests.platform.support import as_admin, make_provisioner, open_api, tenant_body
from tests.world import PASSWORD, World


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with open_mail_server() as opened:
        yield opened


@pytest.fixture
async def api(database_addresses: Template, tmp_path: Path) -> AsyncIterator[World]:
    """Without a schema that is ready: the provisioner, which has no vault, makes each."""
    async with open_api(database_addresses, tmp_path, provision_wait=0.05, registry_poll_interval=0.05) as opened:
        yield opened


async def create(api: World, slug: str, **fields: object) -> dict[str, Any]:
    answer = await api.operator.post("/platform/tenants", json=tenant_body(slug, ownerPassword=None, **fields))
    assert answer.status_code == 202, answer.text
    return answer.json()  # type: ignore[no-any-return]


def context_of(made: dict[str, Any]) -> TenantContext:
    return TenantContext.build(
        tenant_id=UUID(made["id"]),
        slug=made["slug"],
        name=made["name"],
        status="active",
        plan=PlanLimits(slug="free"),
        times=ScopeTimes(),
    )


async def waiting(api: World, made: dict[str, Any]) -> list[Enqueued]:
    return await platform_box(api, None).enqueued(context_of(made), send_mail)


async def test_the_owners_invitation_is_mailed_once_the_organization_is_made(api: World, server: MailServer) -> None:
    made = await create(api, "acme")
    other = await create(api, "globex")
    [job] = await waiting(api, made)
    invitation = made["ownerInvitation"]
    async with as_admin(api.addresses) as admin:
        # Neither what waits for the provisioner nor what waits for the worker has it in it, or the digest's text.
        for table in ("operation", "outbox"):
            rows = await admin.fetch(f"SELECT t::text AS row FROM platform.{table} t")
            assert rows
            assert not [row for row in rows if invitation.rpartition("_")[2] in row["row"]]
    provisioner = make_provisioner(api.addresses)
    try:
        assert await provisioner.work_off() == 2
    finally:
        await provisioner.close()
    await platform_box(api, server).drain(context_of(made))
    [mail] = server.taken
    assert (mail.recipients, mail.token) == (("owner@acme.example",), invitation)
    assert mail.link.startswith("https://acme.app.example.com/accept-invitation#")
    assert mail.message["Message-ID"].startswith(f"<{job.id}@")
    accepted = await api.http.post("/api/auth/invitations/accept", json={"token": invitation, "password": PASSWORD})
    assert accepted.status_code == 200, accepted.text
    # Who has come meanwhile is not written to.
    theirs = {"token": other["ownerInvitation"], "password": PASSWORD}
    assert (await api.http.post("/api/auth/invitations/accept", json=theirs)).status_code == 200
    await platform_box(api, server).drain(context_of(other))
    assert server.taken == [mail]


async def test_an_operator_who_hands_it_over_themselves_has_none_mailed(api: World) -> None:
    assert await waiting(api, await create(api, "acme", mailInvitation=False)) == []
    answer = await api.operator.post("/platform/tenants", json=tenant_body("globex"))
    assert await waiting(api, answer.json()) == []


async def test_a_deployment_without_mail_makes_organizations_as_ever(api: World) -> None:
    creator = api.app.state.tenant_creator
    creator._settings = api.settings.model_copy(update={"mail_url": None})
    made = await create(api, "acme")
    assert made["ownerInvitation"].startswith("inv_")
    assert await waiting(api, made) == []


async def test_a_slug_that_is_taken_has_nothing_mailed(api: World) -> None:
    await create(api, "acme")
    answer = await api.operator.post("/platform/tenants", json=tenant_body("acme", ownerPassword=None))
    assert answer.status_code == 409
    async with as_admin(api.addresses) as admin:
        assert await admin.fetchval("SELECT count(*) FROM platform.outbox WHERE name = 'send_mail'") == 1
