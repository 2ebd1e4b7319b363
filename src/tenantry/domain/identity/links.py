"""What routes without a token have in common that trade mailed links for something."""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tenantry.kernel.errors import ClientException
from tenantry.kernel.security import Credential, InvalidCredential
from tenantry.tenancy.request import require_active, require_served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tenantry.kernel.errors import ProblemType
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.registry import TenantRegistry

__all__ = ("find_tenant", "paced", "tenant_of_link")

_PACE = 0.25
"""Seconds. A mail that is written down takes a few milliseconds that no mail does not; answers leave at full quarters
of a second, and do not tell."""


@asynccontextmanager
async def paced() -> AsyncIterator[None]:
    """Let the block end at a full quarter of a second. What it raises is known to whoever asks, and is not delayed."""
    begun = asyncio.get_running_loop().time()
    yield
    spent = asyncio.get_running_loop().time() - begun
    await asyncio.sleep(math.ceil(spent / _PACE) * _PACE - spent)


async def find_tenant(registry: TenantRegistry, slug: str) -> TenantContext | None:
    """The organization of that slug if it is active; None for any other, as for one that never was.

    Raises:
        UnavailableException: it is at a revision that this release does not serve.
    """
    tenant = await registry.find_slug(slug)
    if tenant is None or not tenant.is_active:
        return None
    require_served(tenant)
    return tenant


def tenant_of_link(
    registry: TenantRegistry, token: str, kind: str, *, host_tenant: str | None, problem: ProblemType
) -> tuple[TenantContext, bytes]:
    """The organization that a mailed credential names, and the digest by which it is known there.

    Raises:
        ClientException: with `problem`: it is none of this kind, or another organization's than the host's.
        PermissionDeniedException: the organization is suspended, archived or gone.
        UnavailableException: it is at a revision that this release does not serve.
    """
    try:
        parsed = Credential.parse(token, kind)
    except InvalidCredential as error:
        raise ClientException(problem=problem) from error
    tenant = registry.by_id(parsed.tenant_id)
    if tenant is None or (host_tenant is not None and host_tenant != tenant.slug):
        raise ClientException(problem=problem)
    require_active(tenant)
    return tenant, parsed.digest
