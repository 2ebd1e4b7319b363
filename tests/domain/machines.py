"""Machines: callers with an API key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import select, update

from tenantry.domain.identity.api_keys.models import ApiKey
from tests.world import Caller, TenantHandle

__all__ = ("Machine", "change_row", "make_account", "make_key", "read_row")


@dataclass
class Machine(Caller):
    """Somebody who sends an API key in place of a token."""

    key_id: UUID = field(default_factory=lambda: UUID(int=0))

    @property
    def key(self) -> str:
        return self.access_token

    async def works(self) -> bool:
        answer = await self.get("/api/roles")
        assert answer.status_code in {200, 401}, answer.text
        return answer.status_code == 200


async def make_key(owner: Caller, *scopes: str, path: str = "/api/api-keys", **body: Any) -> Machine:
    """A key of the caller's own, or at another address of somebody else's; it may see roles besides."""
    wanted = {"name": "Nightly report", "scopes": ["roles:read", *scopes], **body}
    made = await owner.post(path, json=wanted)
    assert made.status_code == 201, made.text
    return Machine(owner.http, made.json()["key"], id=owner.id, key_id=UUID(made.json()["id"]))


async def make_account(owner: Caller, name: str = "Deployer", roles: tuple[str, ...] = ("admin",)) -> str:
    """A service account; its address."""
    made = await owner.post("/api/service-accounts", json={"name": name, "roles": list(roles)})
    assert made.status_code == 201, made.text
    return f"/api/service-accounts/{made.json()['id']}"


async def read_row(tenant: TenantHandle, key_id: UUID) -> ApiKey | None:
    async with tenant.world.database.transaction(tenant.context.read_scope) as transaction:
        found: ApiKey | None = await transaction.session.scalar(select(ApiKey).where(ApiKey.id == key_id))
        return found


async def change_row(tenant: TenantHandle, key_id: UUID, **values: Any) -> None:
    """As time would have done it."""
    async with tenant.world.database.transaction(tenant.context.write_scope) as transaction:
        await transaction.session.execute(update(ApiKey).where(ApiKey.id == key_id).values(**values))
