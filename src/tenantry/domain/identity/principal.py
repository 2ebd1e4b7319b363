"""Who is asking: one small read at the start of every request's transaction."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from tenantry.domain.identity.enrolment import ENROLMENT, refuse_but_enrolment
from tenantry.tenancy.guards import principal_of
from tenantry.tenancy.request import TenantRequest

if TYPE_CHECKING:
    from uuid import UUID

    from litestar.connection import ASGIConnection

    from tenantry.domain.roles.catalogue import PermissionCatalogue
    from tenantry.tenancy.noting import NotedUses
    from tenantry.tenancy.request import RequestTransaction

__all__ = ("UserPrincipal", "load_user_principal", "own_session")

# On the driver, not the ORM: it runs in every request. The session and the account are looked at each time, so that
# log-out, revocation and deactivation count at once, in every process, without a cache that could be stale.
# One array of grants, `@role` or `=permission permission …`: PostgreSQL plans the statement anew whenever the
# search_path has changed, which is at every change of tenant, and a second sub-select took a third more (313 → 220 µs
# of its CPU). What an organization may write comes behind a sign of its own, so that no text of theirs is a built-in.
_PRINCIPAL = """
SELECT u.is_superuser, s.authenticated_at, coalesce(s.enrol_by <= now(), false) AS must_enrol,
       s.last_used_at < now() - interval '1 minute' AS is_noted_late,
       ARRAY(SELECT CASE WHEN r.is_builtin THEN '@' || r.slug ELSE '=' || array_to_string(r.permissions, ' ') END
               FROM user_role ur JOIN role r ON r.id = ur.role_id WHERE ur.user_id = s.user_id) AS grants
  FROM user_session s JOIN user_account u ON u.id = s.user_id
 WHERE s.id = $1 AND s.user_id = $2 AND s.revoked_at IS NULL AND s.expires_at > now() AND u.is_active
"""
# Asked of a session that is not let in: a row that says so. None at all is no proof, a replica may be behind; and an
# account that is deactivated may come back.
_ENDED = "SELECT 1 FROM user_session WHERE id = $1 AND (revoked_at IS NOT NULL OR expires_at <= now())"


@dataclass(frozen=True, slots=True)
class UserPrincipal:
    """A user of the organization, with the permissions of all their roles."""

    id: UUID
    session_id: UUID
    is_superuser: bool
    is_owner: bool
    """Of the built-in role `owner`: administrators hold every permission as well, so permissions do not tell."""
    permissions: frozenset[str]
    authenticated_at: datetime.datetime | None = None
    """When they last proved who they are."""
    api_key_id: None = None
    operator_access_id: None = None

    @property
    def user_id(self) -> UUID:
        return self.id


def own_session(connection: ASGIConnection[Any, Any, Any, Any]) -> UserPrincipal:
    """The caller with the session that they ask by, on a route that is for people (`any_user`, `requires_person`)."""
    principal = principal_of(connection)
    assert isinstance(principal, UserPrincipal)  # noqa: S101 - what the tenants' plane loads for a person
    return principal


async def load_user_principal(
    connection: ASGIConnection[Any, Any, Any, Any], request: RequestTransaction
) -> UserPrincipal | None:
    """The caller that the access token names, or None if their session or account is no longer good.

    Raises:
        PermissionDeniedException: the organization asks for a second factor that they lack, the time for it is over,
            and the route is not one by which they could set one up.
    """
    claims = request.claims
    if claims is None or claims.sid is None:
        return None
    connected = await request.connection()
    record = await connected.fetchrow(_PRINCIPAL, claims.sid, claims.sub)
    if record is None:
        if isinstance(request, TenantRequest):
            request.is_over = await connected.fetchval(_ENDED, claims.sid) is not None
        return None
    if record["must_enrol"] and not connection.route_handler.opt.get(ENROLMENT):
        connection.scope["state"]["user_id"] = claims.sub
        refuse_but_enrolment()
    # For events and jobs, which say whose doing they are.
    structlog.contextvars.bind_contextvars(user_id=str(claims.sub))
    if record["is_noted_late"] and isinstance(request, TenantRequest) and request.tenant is not None:
        session_uses: NotedUses = connection.app.state.session_uses
        request.afterwards = partial(session_uses.note, request.tenant, claims.sid)
    catalogue: PermissionCatalogue = connection.app.state.permissions
    is_superuser: bool = record["is_superuser"]
    return UserPrincipal(
        id=claims.sub,
        session_id=claims.sid,
        is_superuser=is_superuser,
        is_owner="@owner" in record["grants"],
        permissions=catalogue.all if is_superuser else catalogue.of_grants(record["grants"]),
        authenticated_at=record["authenticated_at"],
    )
