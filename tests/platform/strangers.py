"""People without a token, and the platform's worker that writes to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tenantry.features import JOBS, MAILS
from tenantry.jobs.testing import Enqueued, JobBox
from tenantry.kernel.mail import Mailer
from tenantry.kernel.security import Vault
from tenantry.kernel.settings import Settings
from tenantry.mail.jobs import send_platform_mail
from tests.mail.support import CONTROL
from tests.mailserver import MailServer, Taken
from tests.platform.support import open_api
from tests.world import World

__all__ = ("open_door", "platform_box", "platform_post", "platform_waiting", "sign_up")

PROXY = "127.0.0.1/32"


@asynccontextmanager
async def open_door(world: World, **overrides: object) -> AsyncIterator[World]:
    """Another process of the deployment, where strangers may sign up; limits that no test meets unless it sets them."""
    settings: dict[str, object] = {
        "signup": "true",
        "signup_mails": 1_000_000,
        "organizations_mails": 1_000_000,
        "registry_poll_interval": 0.05,
        "trusted_proxies": PROXY,
    }
    async with open_api(world.addresses, world.settings.home, **(settings | overrides)) as api:
        yield api


def platform_box(api: World, server: MailServer | None) -> JobBox:
    """A worker with this server; without one, with the folder of the settings."""
    changes = {} if server is None else {"mail_url": server.url(), "mail_from": "Tenantry <no-reply@mail.example>"}
    settings = api.settings.model_copy(update=changes)
    resources: dict[type, Any] = {
        Settings: settings,
        Vault: api.app.state.vault,
        Mailer: Mailer(settings, MAILS.folders),
    }
    return JobBox(api.database, CONTROL, JOBS, resources)


async def platform_waiting(api: World) -> list[Enqueued]:
    return await platform_box(api, None).enqueued(None, send_platform_mail)


async def platform_post(api: World, server: MailServer, to: str) -> list[Taken]:
    """Let a worker do what is due; the mail to that address that the server has taken of it."""
    before = len(server.taken)
    await platform_box(api, server).drain(None)
    return [mail for mail in server.taken[before:] if mail.recipients == (to,)]


async def sign_up(api: World, email: str, client: str | None = None, **fields: object) -> httpx.Response:
    headers = {} if client is None else {"X-Forwarded-For": client}
    return await api.http.post("/api/signup", json={"email": email, **fields}, headers=headers)
