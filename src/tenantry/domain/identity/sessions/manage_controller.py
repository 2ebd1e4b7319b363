"""Routes of sessions: one's own, and, for who looks after the organization's people, everybody's."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, Response, delete, get
from litestar.exceptions import ImproperlyConfiguredException
from litestar.params import FromPath, QueryParameter
from litestar.status_codes import HTTP_204_NO_CONTENT

from tenantry.domain.identity.principal import UserPrincipal
from tenantry.domain.identity.sessions.cookies import cleared_cookie
from tenantry.domain.identity.sessions.models import UserSession
from tenantry.domain.identity.sessions.schemas import SessionRead
from tenantry.domain.identity.sessions.service import UserSessionService, is_open
from tenantry.domain.identity.users.authority import require_may_change
from tenantry.domain.identity.users.providers import provide_users
from tenantry.domain.identity.users.service import UserService
from tenantry.kernel.schema import Page
from tenantry.kernel.service import Injected, ListQuery, create_list_query, create_service_provider
from tenantry.tenancy.guards import principal_of, requires_permission, requires_person
from tenantry.tenancy.request import tenant_request

__all__ = ("OwnSessionController", "UserSessionController", "own_principal", "signed_out")

_listing = create_list_query(
    sortable=("last_used_at", "created_at", "expires_at"),
    searched=("device", "address"),
    default="last_used_at",
    descending=True,
)
_IncludeCurrent = Annotated[
    bool, QueryParameter(name="includeCurrent", description="End the session that asks as well.")
]


def own_principal(request: Request[Any, Any, Any]) -> UserPrincipal:
    """The caller, on a route that no API key opens."""
    principal = principal_of(request)
    if not isinstance(principal, UserPrincipal):
        raise ImproperlyConfiguredException("the route is open to callers who have no session")
    return principal


def signed_out(request: Request[Any, Any, Any], *, everything: bool = True) -> Response[None]:
    """204; with `everything`, a browser forgets its refresh token as well, if it has one."""
    response: Response[None] = Response(None, status_code=HTTP_204_NO_CONTENT)
    tenant = tenant_request(request).tenant
    if everything and tenant is not None:
        response.set_cookie(cleared_cookie(tenant.id))
    return response


class OwnSessionController(Controller):
    """One's own sessions: where one is signed in."""

    path = "/sessions"
    tags = ["sessions"]
    dependencies = {"sessions": create_service_provider(UserSessionService)}
    opt = {"any_user": True}

    @get("/", operation_id="ListSessions", summary="List my sessions", dependencies={"listing": _listing})
    async def list_sessions(
        self, request: Request[Any, Any, Any], sessions: Injected[UserSessionService], listing: Injected[ListQuery]
    ) -> Page[SessionRead]:
        """The devices on which the caller is signed in, the one that was used last first."""
        return await _page(request, sessions, listing, own_principal(request).id)

    @delete("/", operation_id="EndSessions", summary="End my other sessions")
    async def end_sessions(
        self,
        request: Request[Any, Any, Any],
        sessions: Injected[UserSessionService],
        include_current: _IncludeCurrent = False,
    ) -> Response[None]:
        """End all of the caller's sessions but the one that asks, or that one too. Their tokens are refused at once."""
        principal = own_principal(request)
        await sessions.end_all(principal.id, but=None if include_current else principal.session_id)
        return signed_out(request, everything=include_current)

    @delete("/{session_id:uuid}", operation_id="EndSession", summary="End a session of mine")
    async def end_session(
        self, request: Request[Any, Any, Any], sessions: Injected[UserSessionService], session_id: FromPath[UUID]
    ) -> Response[None]:
        """End one of the caller's sessions; both of its tokens are refused from the next request on."""
        principal = own_principal(request)
        await sessions.end(principal.id, session_id)
        return signed_out(request, everything=session_id == principal.session_id)


class UserSessionController(Controller):
    """Sessions of the organization's people, for who looks after them."""

    path = "/users/{user_id:uuid}/sessions"
    tags = ["sessions"]
    dependencies = {"sessions": create_service_provider(UserSessionService), "users": provide_users}
    guards = [requires_permission("sessions:manage"), requires_person]

    @get("/", operation_id="ListUserSessions", summary="List a user's sessions", dependencies={"listing": _listing})
    async def list_user_sessions(
        self,
        request: Request[Any, Any, Any],
        sessions: Injected[UserSessionService],
        users: Injected[UserService],
        user_id: FromPath[UUID],
        listing: Injected[ListQuery],
    ) -> Page[SessionRead]:
        """The devices on which a user is signed in."""
        await users.get(user_id)
        return await _page(request, sessions, listing, user_id)

    @delete("/", operation_id="EndUserSessions", summary="End a user's sessions")
    async def end_user_sessions(
        self,
        request: Request[Any, Any, Any],
        sessions: Injected[UserSessionService],
        users: Injected[UserService],
        user_id: FromPath[UUID],
    ) -> None:
        """Sign a user out everywhere, with the next request. Nobody does so to somebody who may do more than they."""
        await _require_may_end(request, users, user_id)
        await sessions.end_all(user_id)

    @delete("/{session_id:uuid}", operation_id="EndUserSession", summary="End a user's session")
    async def end_user_session(
        self,
        request: Request[Any, Any, Any],
        sessions: Injected[UserSessionService],
        users: Injected[UserService],
        user_id: FromPath[UUID],
        session_id: FromPath[UUID],
    ) -> None:
        """Sign a user out on one device, with the next request."""
        await _require_may_end(request, users, user_id)
        await sessions.end(user_id, session_id)


async def _require_may_end(request: Request[Any, Any, Any], users: UserService, user_id: UUID) -> None:
    user = await users.get(user_id)
    if user_id != principal_of(request).id:
        await require_may_change(principal_of(request), user, users.repository.session, request.app.state.permissions)


async def _page(
    request: Request[Any, Any, Any], sessions: UserSessionService, listing: ListQuery, user_id: UUID
) -> Page[SessionRead]:
    current = own_principal(request).session_id

    def read(row: UserSession, struct: type[SessionRead]) -> SessionRead:
        return struct(
            id=row.id,
            device=row.device,
            address=row.address,
            is_current=row.id == current,
            created_at=row.created_at,
            last_used_at=row.last_used_at,
            expires_at=row.expires_at,
        )

    return await sessions.page(listing, SessionRead, UserSession.user_id == user_id, is_open(), convert=read)
