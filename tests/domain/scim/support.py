"""A directory: a service account of an owner's, with a key that may do nothing but SCIM unless asked for more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from tests.domain.machines import Machine, make_key
from tests.world import Caller, TenantHandle

__all__ = ("GROUP", "PATCH", "SCIM", "USER", "Directory", "connect", "error_of", "events_of")

SCIM = "/api/scim/v2"
USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"


@dataclass
class Directory:
    """What speaks SCIM to one organization."""

    tenant: TenantHandle
    machine: Machine

    async def ask(self, method: str, path: str, body: Any = None, **arguments: Any) -> httpx.Response:
        headers = {"Content-Type": "application/scim+json", **arguments.pop("headers", {})}
        if body is not None:
            arguments["json"] = body
        return await self.machine.request(method, f"{SCIM}{path}", headers=headers, **arguments)

    async def user(self, login: str, **fields: Any) -> dict[str, Any]:
        """Provision somebody."""
        body = {"schemas": [USER], "userName": f"{login}@people.example", "active": True, **fields}
        made = await self.ask("POST", "/Users", body)
        assert made.status_code == 201, made.text
        found: dict[str, Any] = made.json()
        return found

    async def group(self, name: str, *user_ids: str, **fields: Any) -> dict[str, Any]:
        body = {"schemas": [GROUP], "displayName": name, "members": [{"value": each} for each in user_ids], **fields}
        made = await self.ask("POST", "/Groups", body)
        assert made.status_code == 201, made.text
        found: dict[str, Any] = made.json()
        return found

    async def patch(self, path: str, *operations: dict[str, Any], **arguments: Any) -> httpx.Response:
        return await self.ask("PATCH", path, {"schemas": [PATCH], "Operations": list(operations)}, **arguments)

    async def read(self, path: str, **params: Any) -> dict[str, Any]:
        answer = await self.ask("GET", path, params=params)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def rest(self) -> None:
        """Let the registry catch up: while Hypothesis thinks of an example, nothing else runs."""
        await self.tenant.world.app.state.registry.refresh()

    async def find(self, filter: str, kind: str = "Users") -> list[str]:  # noqa: A002
        """Names of those who are found, in the order of the list."""
        found = await self.read(f"/{kind}", filter=filter)
        assert found["totalResults"] == len(found.get("Resources", []))
        return [each.get("userName") or each["displayName"] for each in found.get("Resources", [])]


async def connect(tenant: TenantHandle, *more: str, name: str = "Directory") -> Directory:
    """Connect a directory, as docs/scim.md says; its role and its key have `more` permissions besides."""
    permissions = ["scim:manage", "roles:read", *more]
    role = await tenant.post("/api/roles", json={"name": name, "permissions": permissions})
    assert role.status_code == 201, role.text
    account = await tenant.post("/api/service-accounts", json={"name": name, "roles": [role.json()["slug"]]})
    assert account.status_code == 201, account.text
    key = await make_key(
        tenant, "scim:manage", *more, path=f"/api/service-accounts/{account.json()['id']}/api-keys", name=name
    )
    return Directory(tenant, key)


def error_of(answer: httpx.Response) -> tuple[int, str | None]:
    """Status and `scimType` of an error, which is in SCIM's form."""
    assert answer.headers["Content-Type"] == "application/scim+json", answer.text
    body = answer.json()
    assert body["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]
    assert body["status"] == str(answer.status_code)
    assert body["detail"]
    return answer.status_code, body.get("scimType")


async def events_of(caller: Caller, subject: str) -> list[tuple[str, str]]:
    """What happened to it, the latest last, and whose doing it was."""
    answer = await caller.get("/api/audit", params={"pageSize": 200})
    assert answer.status_code == 200, answer.text
    items = [each for each in answer.json()["items"] if each["subject"] == subject]
    return [(each["name"], each["actor"]) for each in sorted(items, key=lambda each: each["occurredAt"])]
