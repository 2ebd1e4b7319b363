"""A tenant's worker in the test's hands, which gives its mail to a real server."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tenantry.features import JOBS, MAILS
from tenantry.jobs.runner import attempt
from tenantry.jobs.testing import Enqueued, JobBox
from tenantry.kernel.mail import Mailer
from tenantry.kernel.security import Vault
from tenantry.kernel.settings import Settings
from tenantry.mail.jobs import send_mail
from tenantry.tenancy.context import ScopeTimes, control_scope
from tests.mailserver import MailServer, Taken
from tests.world import TenantHandle

__all__ = ("CONTROL", "box_of", "mails_of", "post", "resources", "send_once", "waiting")

CONTROL = control_scope(ScopeTimes(), read_only=False)


def resources(tenant: TenantHandle, server: MailServer | None) -> dict[type, Any]:
    """What a worker has, with this server or with none."""
    settings = tenant.world.settings.model_copy(
        update={
            "mail_url": None if server is None else server.url(),
            "mail_from": "Tenantry <no-reply@mail.example>",
        }
    )
    return {
        Settings: settings,
        Vault: tenant.world.app.state.vault,
        Mailer: Mailer(settings, MAILS.folders),
    }


def box_of(tenant: TenantHandle, server: MailServer | None) -> JobBox:
    return JobBox(tenant.world.database, CONTROL, JOBS, resources(tenant, server))


async def waiting(tenant: TenantHandle) -> list[Enqueued]:
    """The mail that is still to be sent."""
    return await box_of(tenant, None).enqueued(tenant.context, send_mail)


async def post(tenant: TenantHandle, server: MailServer) -> list[Taken]:
    """Let a worker do what is due; the mail that the server has taken of it."""
    before = len(server.taken)
    await box_of(tenant, server).drain(tenant.context)
    return server.taken[before:]


async def send_once(
    tenant: TenantHandle, server: MailServer | None, job: Enqueued, *, number: int = 1, ends: bool = False
) -> None:
    """One attempt at a job, whose row stays (as if the worker had died after it), or `ends` as it does."""
    await attempt(
        tenant.world.database,
        tenant.context.write_scope,
        send_mail,
        entry=job.id if ends else None,
        job_id=str(job.id),
        number=number,
        tenant=tenant.context,
        arguments=job.arguments,
        meta=job.meta,
        resources=resources(tenant, server),
        report=_nobody_looks,
    )


async def _nobody_looks(done: float) -> None: ...


def mails_of(taken: list[Taken], name: str) -> list[Taken]:
    """Those that were sent to `name@…`."""
    return [each for each in taken if each.recipients[0].startswith(f"{name}@")]


def id_of(answer: Any) -> UUID:
    return UUID(answer.json()["id"])
