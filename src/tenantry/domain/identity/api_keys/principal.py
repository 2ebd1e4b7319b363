"""Which machine is asking: one small read at the start of every request by an API key, as many as for a token."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from tenantry.domain.identity.api_keys.last_use import NOTED_EVERY, LastUses
from tenantry.domain.identity.principal import UserPrincipal, load_user_principal
from tenantry.tenancy.request import TenantRequest

if TYPE_CHECKING:
    from uuid import UUID

    from litestar.connection import ASGIConnection

    from tenantry.domain.roles.catalogue import PermissionCatalogue
    from tenantry.tenancy.request import RequestTransaction

__all__ = ("KeyPrincipal", "load_principal")

# On the driver, as the users' is, and one statement: of the key, its owner and the owner's roles nothing is cached, so
# that revoking, deactivating and taking a role away count with the next request. The index finds the digest; what its
# comparison takes tells at most of a SHA-256, of which nobody can choose the next digit.
_KEY = """
SELECT k.id, k.user_id, k.service_account_id, k.scopes, coalesce(u.is_superuser, false) AS is_superuser,
       coalesce(k.last_used_at < now() - $2::interval, true) AS is_noted_late,
       ARRAY(SELECT CASE WHEN r.is_builtin THEN '@' || r.slug ELSE '=' || array_to_string(r.permissions, ' ') END
               FROM (SELECT role_id FROM user_role WHERE user_id = k.user_id
                     UNION ALL
                     SELECT role_id FROM service_account_role WHERE service_account_id = k.service_account_id) held
               JOIN role r ON r.id = held.role_id) AS grants
  FROM api_key k
       LEFT JOIN user_account u ON u.id = k.user_id
       LEFT JOIN service_account a ON a.id = k.service_account_id
 WHERE (k.digest = $1 OR (k.previous_digest = $1 AND k.previous_until > now()))
   AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
   AND coalesce(u.is_active, a.is_active)
"""


@dataclass(frozen=True, slots=True)
class KeyPrincipal:
    """A machine, with what its key's scopes and the roles of the key's owner both permit."""

    id: UUID
    """The user's or the service account's."""
    user_id: UUID | None
    api_key_id: UUID
    permissions: frozenset[str]
    is_superuser: bool = False
    """Never, whosever the key is: scopes are permissions, and this is none."""
    operator_access_id: None = None


async def load_principal(
    connection: ASGIConnection[Any, Any, Any, Any], request: RequestTransaction
) -> UserPrincipal | KeyPrincipal | None:
    """The caller that the access token or the API key names, or None if it is no longer good, or never was."""
    if not isinstance(request, TenantRequest) or request.key_digest is None:
        return await load_user_principal(connection, request)
    record = await (await request.connection()).fetchrow(_KEY, request.key_digest, NOTED_EVERY)
    if record is None:
        request.is_over = True
        return None
    key_id: UUID = record["id"]
    # For events and jobs, which say whose doing they are.
    structlog.contextvars.bind_contextvars(api_key_id=str(key_id))
    if record["is_noted_late"] and request.tenant is not None:
        last_uses: LastUses = connection.app.state.last_uses
        request.afterwards = partial(last_uses.note, request.tenant, key_id)
    catalogue: PermissionCatalogue = connection.app.state.permissions
    owners = catalogue.all if record["is_superuser"] else catalogue.of_grants(record["grants"])
    return KeyPrincipal(
        id=record["user_id"] or record["service_account_id"],
        user_id=record["user_id"],
        api_key_id=key_id,
        permissions=owners.intersection(record["scopes"]),
    )
