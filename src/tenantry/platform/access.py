"""The operators' plane: their tokens, what their roles may do, and the scope of their transactions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from litestar.enums import ScopeType
from litestar.exceptions import ImproperlyConfiguredException

from tenantry.kernel.errors import NotAuthenticatedException
from tenantry.kernel.security import AUDIENCE_PLATFORM, InvalidToken, Tokens
from tenantry.kernel.work import WORK
from tenantry.tenancy.guards import principal_of
from tenantry.tenancy.request import RequestTransaction, bearer_token, is_safe, keep_request_transaction

if TYPE_CHECKING:
    from uuid import UUID

    from litestar.connection import ASGIConnection
    from litestar.types import ASGIApp, Receive, Scope, Send

    from tenantry.tenancy.database import Database
    from tenantry.tenancy.scope import Scope as DatabaseScope

__all__ = ("OPERATOR_PERMISSIONS", "OperatorPrincipal", "PlatformMiddleware", "actor_of", "load_operator_principal")

_READ = frozenset(
    {
        *("plans:read", "tenants:read", "operations:read", "rollouts:read", "jobs:read", "catalog:read"),
        *("usage:read", "access:read"),
    }
)
# To come into an organization takes its consent as well (`tenantry.platform.tenant_access`).
_SUPPORT = _READ | {"tenants:suspend", "access:open"}
_RUN = _SUPPORT | {"tenants:write", "tenants:export", "rollouts:write", "jobs:write", "audit:read"}
OPERATOR_PERMISSIONS = {
    "auditor": _READ | {"audit:read", "operators:read"},
    "support": _SUPPORT,
    "operator": _RUN,
    # What cannot be undone, what needs nobody's consent, and who may do anything at all, is the owners' alone.
    "owner": _RUN | {"tenants:purge", "operators:read", "operators:write", "access:break-glass"},
}

_OPERATOR = "SELECT email, role FROM operator WHERE id = $1 AND is_active"


@dataclass(frozen=True, slots=True)
class OperatorPrincipal:
    """An operator. No permission of theirs opens a tenant's route, and no tenant's one of theirs."""

    id: UUID
    email: str
    role: str
    permissions: frozenset[str]
    is_superuser: bool = False
    user_id: None = None
    api_key_id: None = None
    operator_access_id: None = None
    """In no organization; see `tenantry.domain.operator_access`."""


def actor_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The caller as the audit trail names them.

    Raises:
        NotAuthenticatedException: there is none.
    """
    return f"operator:{principal_of(connection).id}"


async def load_operator_principal(
    _: ASGIConnection[Any, Any, Any, Any], request: RequestTransaction
) -> OperatorPrincipal | None:
    """The operator that the token names, or None if their account is no longer good."""
    if request.claims is None:
        return None
    record = await (await request.connection()).fetchrow(_OPERATOR, request.claims.sub)
    if record is None:
        return None
    role: str = record["role"]
    return OperatorPrincipal(request.claims.sub, record["email"], role, OPERATOR_PERMISSIONS[role])


class PlatformMiddleware:
    """Admits operators' tokens to the control plane, and nothing else."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        database: Database,
        tokens: Tokens,
        read_scope: DatabaseScope,
        write_scope: DatabaseScope,
    ) -> None:
        self.app = app
        self._database = database
        self._tokens = tokens
        self._read_scope = read_scope
        self._write_scope = write_scope

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            raise ImproperlyConfiguredException("only HTTP routes can be the control plane's")
        WORK.set(f"{scope['method']} {scope['path_template']}")
        request = RequestTransaction(self._database, read_only=is_safe(scope))
        if not scope["route_handler"].opt.get("public"):
            token = bearer_token(scope)
            if token is None:
                raise NotAuthenticatedException
            try:
                request.claims = self._tokens.verify(token, AUDIENCE_PLATFORM)
            except InvalidToken as error:
                raise NotAuthenticatedException("The token is not valid.", invalid_token=True) from error
            structlog.contextvars.bind_contextvars(operator=str(request.claims.sub))
        request.enter(self._read_scope if request.read_only else self._write_scope)
        await keep_request_transaction(request, self.app, scope, receive, send)
