"""Where an organization's people may not use passwords: who signs in by a provider must.

Below all that sets or takes a password, so that each of them can ask. The tables are those of single sign-on, which is
above: by their names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from email_validator import validate_email
from sqlalchemy import text

from tenantry.kernel.errors import PermissionDeniedException, define_problem

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.tenancy.context import TenantContext

__all__ = ("SSO_REQUIRED", "domain_of", "require_password_allowed", "sso_refusal", "start_path")

SSO_REQUIRED = define_problem(
    "sso-required",
    403,
    "Single sign-on is required",
    "The organization wants people of this e-mail domain to sign in by its provider, `connectionName`, and not with a "
    "password. Have `connectionId` started at POST /api/auth/sso/start, or the browser go to `startPath`.",
)

# Owners keep their passwords: of a provider that is away or set up wrongly somebody must be able to get rid.
_ENFORCED = text("""
SELECT c.id, c.name
  FROM sso_domain d JOIN sso_connection c ON c.id = d.connection_id
 WHERE d.domain = :domain AND c.is_enabled AND c.is_enforced
   AND NOT EXISTS (
       SELECT FROM user_account u
        WHERE u.id = :user_id
          AND (u.is_superuser
               OR EXISTS (SELECT FROM user_role h JOIN role r ON r.id = h.role_id
                           WHERE h.user_id = u.id AND r.is_builtin AND r.slug = 'owner')))
""")


def domain_of(email: str) -> str:
    """The domain of an address that was normalized, as DNS has it: in lower case, `xn--…` where it is not ASCII."""
    found = validate_email(email, check_deliverability=False).ascii_domain
    return found.lower()


def start_path(tenant: TenantContext, connection_id: UUID) -> str:
    """Where a browser begins to sign in, but for the `codeChallenge` that its page adds."""
    query = urlencode({"tenant": tenant.slug, "connection": str(connection_id)})
    return f"/api/auth/sso/start?{query}"


async def sso_refusal(
    session: AsyncSession, tenant: TenantContext, email: str, user_id: UUID | None, *, detail: str = ""
) -> PermissionDeniedException | None:
    """The refusal of a password to whom the organization wants to sign in by its provider, or None.

    Args:
        session: in the tenant's scope.
        tenant: for what the refusal says.
        email: normalized.
        user_id: of the account: owners and superusers may have a password. None where there is no account yet, or where
            nobody is to learn whose it is.
        detail: in place of what the refusal says of itself.
    """
    found = (await session.execute(_ENFORCED, {"domain": domain_of(email), "user_id": user_id})).one_or_none()
    if found is None:
        return None
    return PermissionDeniedException(
        detail,
        problem=SSO_REQUIRED,
        connectionId=str(found.id),
        connectionName=found.name,
        startPath=start_path(tenant, found.id),
    )


async def require_password_allowed(
    session: AsyncSession, tenant: TenantContext, email: str, user_id: UUID | None
) -> None:
    """Refuse a password to whom the organization wants to sign in by its provider; the arguments are `sso_refusal`'s.

    Raises:
        PermissionDeniedException: they sign in by the provider that the problem names.
    """
    if (refusal := await sso_refusal(session, tenant, email, user_id)) is not None:
        raise refusal
