"""Who is asking, where it may be an operator of the platform: looked up and written down in every request."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import structlog

from tenantry.domain.identity.api_keys.principal import KeyPrincipal
from tenantry.domain.identity.api_keys.principal import load_principal as load_own_principal
from tenantry.events.record import record_event
from tenantry.kernel.errors import NotAuthenticatedException, PermissionDeniedException, define_problem
from tenantry.tenancy.guards import OPERATOR_REFUSED
from tenantry.tenancy.request import TenantRequest

if TYPE_CHECKING:
    from litestar.connection import ASGIConnection
    from litestar.handlers import BaseRouteHandler
    from litestar.types import HTTPScope

    from tenantry.domain.identity.principal import UserPrincipal
    from tenantry.domain.roles.catalogue import PermissionCatalogue
    from tenantry.kernel.security import Claims
    from tenantry.tenancy.connection import ScopedConnection
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.request import RequestTransaction

__all__ = ("OPERATOR_READ_ONLY", "OperatorVisitor", "load_principal")

OPERATOR_READ_ONLY = define_problem(
    "operator-read-only",
    403,
    "Let in to look",
    "The operator was let in to look, and may change nothing. Owners can grant access to write.",
)

# The control plane's function says whether the operator is one still, and has the role with which they came.
_SESSION = """
SELECT s.can_write FROM operator_access_session s
 WHERE s.id = $1 AND s.operator_id = $2 AND s.closed_at IS NULL AND s.expires_at > now()
   AND platform.own_operator_access(s.id) = s.operator_id
"""
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class OperatorVisitor:
    """An operator whom the organization has let in: no user of it, and nobody's superior."""

    id: UUID
    operator_access_id: UUID
    permissions: frozenset[str]
    can_write: bool
    user_id: None = None
    api_key_id: None = None
    is_superuser: bool = False


async def load_principal(
    connection: ASGIConnection[Any, Any, Any, Any], request: RequestTransaction
) -> UserPrincipal | KeyPrincipal | OperatorVisitor | None:
    """The caller that the token or the API key names, or None if it is no longer good, or never was."""
    claims = request.claims
    if claims is None or claims.opr is None:
        return await load_own_principal(connection, request)
    return await _load_visitor(connection, request, claims)


async def _load_visitor(
    connection: ASGIConnection[Any, Any, Any, Any], request: RequestTransaction, claims: Claims
) -> OperatorVisitor | None:
    """An operator, whose request is in the trail before anything is answered.

    In a transaction of its own, which is committed before the request's begins: that one may be READ ONLY, and is
    rolled back where something fails. What cannot be written down is not answered either. Whether they may be here is
    asked in both.

    Raises:
        PermissionDeniedException: the route is none for operators, or none for one who may only look.
    """
    handler, scope = connection.route_handler, cast("HTTPScope", connection.scope)
    tenant = request.tenant if isinstance(request, TenantRequest) else None
    if tenant is None or claims.sid is None:
        raise NotAuthenticatedException
    # For events and jobs, which say whose doing they are, and for the access log.
    structlog.contextvars.bind_contextvars(operator_id=str(claims.sub))
    scope["state"]["operator_access_id"] = claims.sid
    database: Database = connection.app.state.database
    # Whoever may only look has no writing scope in the whole request; this is the one thing that is written for them.
    async with database.transaction(replace(tenant.read_scope, read_only=False)) as transaction:
        visitor = await _find(transaction.connection, claims, connection)
        if visitor is None:
            return None
        refusal = _refusal(handler, scope["method"], visitor)
        await record_event(
            transaction.session,
            "operator_access.used",
            subject=visitor.operator_access_id,
            payload={
                "method": scope["method"],
                "route": scope["path_template"],
                "ids": [value for value in connection.path_params.values() if isinstance(value, UUID)],
                "refused": refusal is not None or not _asked_for(handler) <= visitor.permissions,
            },
        )
    if refusal is not None:
        raise refusal
    return await _find(await request.connection(), claims, connection)


async def _find(
    driver: ScopedConnection, claims: Claims, connection: ASGIConnection[Any, Any, Any, Any]
) -> OperatorVisitor | None:
    can_write: bool | None = await driver.fetchval(_SESSION, claims.sid, claims.sub)
    if can_write is None or claims.sid is None or (claims.opr == "write" and not can_write):
        return None
    writes = claims.opr == "write"
    catalogue: PermissionCatalogue = connection.app.state.permissions
    return OperatorVisitor(
        id=claims.sub,
        operator_access_id=claims.sid,
        permissions=catalogue.operators_writing if writes else catalogue.operators_reading,
        can_write=writes,
    )


def _asked_for(handler: BaseRouteHandler) -> set[str]:
    return {guard.permission for guard in handler.resolve_guards() if hasattr(guard, "permission")}


def _refusal(handler: BaseRouteHandler, method: str, visitor: OperatorVisitor) -> PermissionDeniedException | None:
    """Why this is nothing for them, before their permissions are looked at."""
    if handler.opt.get("any_user") or any(
        getattr(guard, "for_people", False) or getattr(guard, "recent_authentication", False)
        for guard in handler.resolve_guards()
    ):
        return PermissionDeniedException("An operator may not do this.", problem=OPERATOR_REFUSED)
    if not visitor.can_write and method not in _READING:
        return PermissionDeniedException("This operator was let in to look.", problem=OPERATOR_READ_ONLY)
    return None
