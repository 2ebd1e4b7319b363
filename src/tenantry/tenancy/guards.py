"""Guards of the tenants' routes. Who the caller is, the identity domain finds out; here it is only asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from tenantry.kernel.errors import NotAuthenticatedException, PermissionDeniedException
from tenantry.tenancy.request import request_transaction

if TYPE_CHECKING:
    from uuid import UUID

    from litestar.connection import ASGIConnection
    from litestar.handlers import BaseRouteHandler
    from litestar.types import Guard

__all__ = ("Principal", "principal_of", "requires_active_user", "requires_permission", "requires_superuser")


class Principal(Protocol):
    """Who is asking, and what they may do."""

    @property
    def id(self) -> UUID: ...

    @property
    def permissions(self) -> frozenset[str]: ...

    @property
    def is_superuser(self) -> bool: ...


def principal_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Principal:
    """The caller, as the guard of the plane found them.

    Raises:
        NotAuthenticatedException: there is none.
    """
    found: Principal | None = request_transaction(connection).principal
    if found is None:
        raise NotAuthenticatedException
    return found


async def requires_active_user(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Admit callers whose session and account are good at this moment, read in the request's own transaction.

    A revoked session or a deactivated account is thus refused with the next request, in every process.
    """
    if handler.opt.get("public"):
        return
    request = request_transaction(connection)
    request.principal = await handler.opt["load_principal"](connection, request)
    if request.principal is None:
        raise NotAuthenticatedException("The session has ended.", invalid_token=True)
    # For the access log.
    connection.scope["state"]["user_id"] = request.principal.id


def requires_permission(name: str) -> Guard:
    """Admit callers who hold the permission `name`."""

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        if name not in principal_of(connection).permissions:
            raise PermissionDeniedException(f"The permission {name!r} is needed.", permission=name)

    # The catalogue's tests and the documents read it back.
    guard.permission = name  # type: ignore[attr-defined]
    return guard


async def requires_superuser(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Admit the organization's superusers."""
    if not principal_of(connection).is_superuser:
        raise PermissionDeniedException("Only a superuser may do this.")
