"""Liveness, readiness, and the public keys: what other machines ask without a token."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from litestar import MediaType, Request, Response, get
from litestar.status_codes import HTTP_200_OK, HTTP_503_SERVICE_UNAVAILABLE

from tenantry.kernel.schema import BaseStruct
from tenantry.kernel.security import Keyring

__all__ = ("HealthCheck", "HealthRead", "jwks", "live", "ready")

_TIMEOUT = 2.0

_log = structlog.get_logger(__name__)


class HealthRead(BaseStruct):
    status: Literal["ok", "degraded", "unavailable"]
    checks: dict[str, Literal["ok", "unavailable"]]


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """Something that a request may need. `check` raises when it is not there; without a `required` one, no service."""

    check: Callable[[], Awaitable[object]]
    required: bool = True


_LIVE = HealthRead(status="ok", checks={})


@get("/health/live", operation_id="Live", summary="Is the process alive", tags=["health"], opt={"public": True})
async def live() -> HealthRead:
    """Answers as long as the process serves; asks nothing of anybody."""
    return _LIVE


@get("/health/ready", operation_id="Ready", summary="Can the process serve", tags=["health"], opt={"public": True})
async def ready(request: Request[Any, Any, Any]) -> Response[HealthRead]:
    """Whether PostgreSQL and the tenant registry answer; 503 when not. Without Redis, service is `degraded`."""
    checks: Mapping[str, HealthCheck] = request.app.state.health_checks
    outcomes = await asyncio.gather(*(_passes(name, check) for name, check in checks.items()))
    found = dict(zip(checks, outcomes, strict=True))
    failed = [name for name, passed in found.items() if not passed]
    fatal = any(checks[name].required for name in failed)
    status: Literal["ok", "degraded", "unavailable"] = "unavailable" if fatal else "degraded" if failed else "ok"
    return Response(
        HealthRead(status=status, checks={name: "ok" if passed else "unavailable" for name, passed in found.items()}),
        status_code=HTTP_503_SERVICE_UNAVAILABLE if fatal else HTTP_200_OK,
        headers={"Retry-After": "1"} if fatal else None,
    )


async def _passes(name: str, check: HealthCheck) -> bool:
    try:
        async with asyncio.timeout(_TIMEOUT):
            await check.check()
    except Exception as error:
        # Whatever it is: a probe that raises is a probe that failed.
        _log.warning("health check failed", check=name, error=repr(error))
        return False
    return True


@get(
    "/.well-known/jwks.json",
    operation_id="GetKeys",
    summary="Public keys",
    tags=["auth"],
    media_type=MediaType.JSON,
    opt={"public": True},
)
async def jwks(request: Request[Any, Any, Any]) -> Response[dict[str, list[dict[str, str]]]]:
    """The keys with which any other service can verify our tokens (RFC 7517)."""
    keyring: Keyring = request.app.state.keyring
    # Short: after a rotation, a service that meets an unknown `kid` asks again.
    return Response(keyring.jwks(), headers={"Cache-Control": "public, max-age=60"})
