"""Operators of the platform whom an organization has let in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from tenantry.kernel.security import AUDIENCE_PLATFORM, Tokens
from tenantry.platform.operators.models import Operator
from tenantry.tenancy.context import ScopeTimes, control_scope
from tests.world import Caller, TenantHandle, World

__all__ = ("Visitor", "consent", "hire", "let_in", "trail_of")


@dataclass
class Visitor(Caller):
    """With a token for one organization; `id` is the operator's."""

    access_id: UUID = field(default_factory=lambda: UUID(int=0))


async def hire(world: World, role: str = "support", name: str | None = "Sue of Support") -> tuple[Caller, str]:
    """An operator of that role, signed in to the control plane, and their address."""
    operator_id = uuid4()
    email = f"{operator_id.hex}@platform.example"
    async with world.database.transaction(control_scope(ScopeTimes(), read_only=False)) as transaction:
        transaction.session.add(Operator(id=operator_id, email=email, name=name, hashed_password="none", role=role))
    tokens = Tokens(world.app.state.keyring, world.settings.token_issuer)
    token, _ = tokens.issue(audience=AUDIENCE_PLATFORM, sub=operator_id, ttl=600)
    return Caller(world.http, token, id=operator_id), email


async def consent(owner: Caller, **body: Any) -> dict[str, Any]:
    """A grant, for a day and to look unless the body says otherwise."""
    made = await owner.post("/api/operator-access/grants", json={"hours": 24, "reason": "Ticket 4711", **body})
    assert made.status_code == 201, made.text
    return made.json()  # type: ignore[no-any-return]


async def let_in(tenant: TenantHandle, operator: Caller, **body: Any) -> Visitor:
    """The operator's way in; there is consent, or `breakGlass`."""
    opened = await operator.post(f"/platform/tenants/{tenant.slug}/access", json={"reason": "Ticket 4711", **body})
    assert opened.status_code == 201, opened.text
    found = opened.json()
    return Visitor(tenant.http, found["accessToken"], id=operator.id, access_id=UUID(found["id"]))


async def trail_of(tenant: TenantHandle, **query: Any) -> list[dict[str, Any]]:
    """Events of the organization's own trail, the oldest first."""
    answer = await tenant.get("/api/audit", params={"pageSize": 200, "sortOrder": "asc", **query})
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]  # type: ignore[no-any-return]
