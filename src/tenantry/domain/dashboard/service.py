"""Putting the dashboard together."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from tenantry.domain.dashboard.schemas import DashboardRead, UnavailablePart
from tenantry.kernel.http.failures import explain_failure, hide_parameters
from tenantry.tenancy.cache import CachedRead

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.kernel.feature import DashboardPart, Feature
    from tenantry.tenancy.guards import Principal
    from tenantry.tenancy.parallel import ParallelReads
    from tenantry.tenancy.request import TenantRequest

__all__ = ("Dashboards",)

_log = structlog.get_logger(__name__)


class Dashboards:
    """Reads what the manifests' `dashboard` says, for whoever comes in.

    Raises:
        ValueError: two parts have one name.
    """

    def __init__(self, features: Iterable[Feature], reads: ParallelReads) -> None:
        self._parts: dict[str, DashboardPart] = {}
        for feature in features:
            for part in feature.dashboard:
                if part.name in self._parts:
                    raise ValueError(f"two parts of the dashboard are named {part.name!r}")
                self._parts[part.name] = part
        self._reads = reads

    async def read(self, request: TenantRequest, principal: Principal) -> DashboardRead:
        """Every part that the caller may see; the request's own transaction ends before.

        A part that fails is null: the others are worth having.

        Raises:
            Exception: no part could be read, so it is what the first of them has raised.
        """
        mine = {
            name: part
            for name, part in self._parts.items()
            if part.permission is None or part.permission in principal.permissions
        }
        reads = {
            name: part.read if isinstance(part.read, CachedRead) else partial(_read, part, principal)
            for name, part in mine.items()
        }
        found = await self._reads.read(request, reads)
        failures = {name: found[name] for name in mine if isinstance(found[name], Exception)}
        if failures and len(failures) == len(mine):
            raise next(iter(failures.values()))
        return DashboardRead(
            parts={name: None if name in failures else found[name] for name in mine},
            unavailable=[UnavailablePart(part=name, detail=_note(name, error)) for name, error in failures.items()],
        )


async def _read(part: DashboardPart, principal: Principal, session: AsyncSession) -> Any:
    return await part.read(session, principal)


def _note(name: str, error: Exception) -> str:
    """What the caller is told of it, and the operators."""
    hide_parameters(error)
    explained = explain_failure(error)
    if explained is None:
        _log.error("a part of the dashboard is broken", part=name, exc_info=error)
        return "It could not be read."
    _log.warning("a part of the dashboard could not be read", part=name, error=type(error).__name__)
    return str(explained.detail)
