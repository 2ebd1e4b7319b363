"""Limits of a tenant's own, as operators give them."""

from __future__ import annotations

from typing import Any

import httpx

from tests.world import TenantHandle

__all__ = ("entitle", "is_over", "use_of")


async def entitle(tenant: TenantHandle, **limits: Any) -> dict[str, Any]:
    """Give a tenant these limits in the place of its plan's, and wait until this process has heard of them."""
    world = tenant.world
    answer = await world.operator.request("PUT", f"/platform/tenants/{tenant.slug}/limits", json=limits)
    assert answer.status_code == 200, answer.text
    await world.app.state.registry.refresh()
    return answer.json()  # type: ignore[no-any-return]


def is_over(answer: httpx.Response, quota: str, *, used: int, allowed: int) -> bool:
    """Whether the answer is that there may be no more."""
    assert answer.status_code == 403, answer.text
    problem = answer.json()
    assert problem["type"] == "/problems/quota-exceeded", problem
    return (problem["quota"], problem["used"], problem["allowed"]) == (quota, used, allowed)


async def use_of(tenant: TenantHandle, quota: str) -> tuple[int, int | None]:
    """How much of it there is, and how much there may be, as its people see it."""
    answer = await tenant.get("/api/tenant")
    assert answer.status_code == 200, answer.text
    [found] = [each for each in answer.json()["quotas"] if each["name"] == quota]
    return found["used"], found["allowed"]
