"""Endpoints of a tenant, and the worker that sends to them, in the test's own hands."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Interval, func, update
from uuid_utils.compat import uuid7

from tenantry.domain.webhooks.jobs import send_webhooks
from tenantry.domain.webhooks.models import WebhookEndpoint
from tenantry.features import JOBS
from tenantry.jobs.models import OutboxEntry
from tenantry.jobs.runner import attempt
from tenantry.jobs.testing import JobBox
from tenantry.kernel.security import Vault
from tenantry.kernel.settings import Settings
from tenantry.tenancy.context import ScopeTimes, control_scope
from tests.receiver import Receiver
from tests.world import Caller, TenantHandle

__all__ = ("Endpoint", "box_of", "let_pass", "make_endpoint", "send", "send_beside")

CONTROL = control_scope(ScopeTimes(), read_only=False)


@dataclass
class Endpoint:
    """One endpoint, as its organization's owner uses it."""

    owner: Caller
    id: UUID
    secret: str

    @property
    def path(self) -> str:
        return f"/api/webhooks/{self.id}"

    async def read(self) -> dict[str, Any]:
        answer = await self.owner.get(self.path)
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    async def deliveries(self, **params: Any) -> list[dict[str, Any]]:
        """The oldest first."""
        answer = await self.owner.get(f"{self.path}/deliveries", params={"sortOrder": "asc", **params})
        assert answer.status_code == 200, answer.text
        return answer.json()["items"]  # type: ignore[no-any-return]

    async def detail(self, delivery: dict[str, Any]) -> dict[str, Any]:
        answer = await self.owner.get(f"{self.path}/deliveries/{delivery['id']}")
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    async def post(self, path: str, expected: int = 202, **body: Any) -> dict[str, Any]:
        answer = await self.owner.post(f"{self.path}/{path}", **({"json": body} if body else {}))
        assert answer.status_code == expected, answer.text
        return answer.json()  # type: ignore[no-any-return]


async def make_endpoint(tenant: TenantHandle, receiver: Receiver, *events: str, path: str = "") -> Endpoint:
    body = {"url": receiver.url + path, "events": events or ("team.*", "tag.*")}
    made = await tenant.post("/api/webhooks", json=body)
    assert made.status_code == 201, made.text
    return Endpoint(tenant, UUID(made.json()["id"]), made.json()["secret"])


def box_of(tenant: TenantHandle) -> JobBox:
    return JobBox(tenant.world.database, CONTROL, JOBS, _resources(tenant))


def _resources(tenant: TenantHandle) -> dict[type, Any]:
    return {Settings: tenant.world.settings, Vault: tenant.world.app.state.vault}


async def send(tenant: TenantHandle) -> None:
    """Let a worker do what is due."""
    await box_of(tenant).drain(tenant.context)


async def send_beside(tenant: TenantHandle, endpoint: Endpoint) -> int:
    """As another job of the same endpoint, at the same time as those that wait."""
    found: int = await attempt(
        tenant.world.database,
        tenant.context.write_scope,
        send_webhooks,
        entry=None,
        job_id=str(uuid7()),
        number=1,
        tenant=tenant.context,
        arguments={"endpoint_id": str(endpoint.id)},
        meta={},
        resources=_resources(tenant),
        report=_nobody_looks,
    )
    return found


async def _nobody_looks(done: float) -> None: ...


async def let_pass(tenant: TenantHandle, span: datetime.timedelta) -> None:
    """Make it that much later for the tenant's endpoints and jobs, and let a worker do what is due then."""
    earlier = func.make_interval(0, 0, 0, 0, 0, 0, span.total_seconds(), type_=Interval)
    database = tenant.world.database
    async with database.transaction(tenant.context.write_scope) as transaction:
        columns = ("failing_since", "next_attempt_at", "previous_until")
        await transaction.session.execute(
            update(WebhookEndpoint).values({name: getattr(WebhookEndpoint, name) - earlier for name in columns})
        )
    async with database.transaction(CONTROL) as transaction:
        await transaction.session.execute(
            update(OutboxEntry).where(OutboxEntry.tenant_id == tenant.tenant_id).values(due=OutboxEntry.due - earlier)
        )
    await send(tenant)
