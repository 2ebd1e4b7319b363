"""Guards of the tenants' routes. Who the caller is, the identity domain finds out; here it is only asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from tenantry.kernel.errors import NotAuthenticatedException, PermissionDeniedException, define_problem
from tenantry.tenancy.request import INVALID_KEY, TenantRequest, own_tenant, request_transaction

if TYPE_CHECKING:
    from uuid import UUID

    from litestar.connection import ASGIConnection
    from litestar.handlers import BaseRouteHandler
    from litestar.types import Guard

    from tenantry.tenancy.context import TenantContext

__all__ = (
    "FEATURE_NOT_IN_PLAN",
    "OPERATOR_REFUSED",
    "PERSON_REQUIRED",
    "USER_REQUIRED",
    "Principal",
    "acting_user_id",
    "principal_of",
    "require_feature",
    "requires_active_user",
    "requires_feature",
    "requires_permission",
    "requires_person",
    "requires_superuser",
)

PERSON_REQUIRED = define_problem(
    "person-required",
    403,
    "A person is needed",
    "API keys may not do this, whatever their scopes: it is about keys, sessions, passwords or a person's own affairs. "
    "Log in.",
)
USER_REQUIRED = define_problem(
    "user-required",
    403,
    "A user is needed",
    "What was asked for becomes a user's, or is about one, and the API key is a service account's, or the caller an "
    "operator of the platform. Use a user's key.",
)
OPERATOR_REFUSED = define_problem(
    "operator-refused",
    403,
    "Not for operators",
    "Operators of the platform may not do this in an organization, whatever its owners have granted: it is about "
    "people's own affairs, or theirs alone to decide.",
)

FEATURE_NOT_IN_PLAN = define_problem(
    "feature-not-in-plan",
    403,
    "Not in this plan",
    "The organization's plan, `plan`, does not include `feature`. What was set up for it stays as it is, and rests.",
)


class Principal(Protocol):
    """Who is asking, and what they may do."""

    @property
    def id(self) -> UUID: ...

    @property
    def permissions(self) -> frozenset[str]: ...

    @property
    def is_superuser(self) -> bool: ...

    @property
    def user_id(self) -> UUID | None:
        """The organization's user who asks, or whose API key does; None for a service account's."""

    @property
    def api_key_id(self) -> UUID | None:
        """The key by which a machine asks; None if it is a person."""

    @property
    def operator_access_id(self) -> UUID | None:
        """The session of an operator of the platform, who is nobody's user; None of everybody else."""


def principal_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Principal:
    """The caller, as the guard of the plane found them.

    Raises:
        NotAuthenticatedException: there is none.
    """
    found: Principal | None = request_transaction(connection).principal
    if found is None:
        raise NotAuthenticatedException
    return found


def acting_user_id(connection: ASGIConnection[Any, Any, Any, Any]) -> UUID:
    """The user who asks, by a session or by an API key of theirs: for what becomes a user's.

    Raises:
        PermissionDeniedException: a service account asks.
    """
    user_id = principal_of(connection).user_id
    if user_id is None:
        raise PermissionDeniedException("Only a user can do this.", problem=USER_REQUIRED)
    return user_id


async def requires_active_user(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Admit callers whose session and account, or API key, are good at this moment, read in the request's transaction.

    A revoked session or key, or a deactivated account, is thus refused with the next request, in every process.
    Routes that ask for no permission (`any_user`) are for people, since no scope could keep a key from them; one that
    is for keys as well says `opt={"api_keys": True}`.
    """
    if handler.opt.get("public"):
        return
    request = request_transaction(connection)
    principal: Principal | None = await handler.opt["load_principal"](connection, request)
    request.principal = principal
    if principal is None:
        by_key = isinstance(request, TenantRequest) and request.key_digest is not None
        raise NotAuthenticatedException(INVALID_KEY if by_key else "The session has ended.", invalid_token=True)
    # For the access log.
    state = connection.scope["state"]
    if principal.api_key_id is None:
        if principal.operator_access_id is None:
            state["user_id"] = principal.id
        elif handler.opt.get("any_user"):
            _require_person(principal)
        return
    state["api_key_id"] = principal.api_key_id
    if handler.opt.get("any_user") and not handler.opt.get("api_keys"):
        _require_person(principal)


async def requires_person(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Refuse API keys and operators: for what makes or ends credentials, and whatever else is people's alone."""
    _require_person(principal_of(connection))


# An operator's requests are written down with whether they were refused, before a guard can say so.
requires_person.for_people = True  # type: ignore[attr-defined]


def _require_person(principal: Principal) -> None:
    if principal.api_key_id is not None:
        raise PermissionDeniedException("An API key may not do this; log in.", problem=PERSON_REQUIRED)
    if principal.operator_access_id is not None:
        raise PermissionDeniedException("An operator may not do this.", problem=OPERATOR_REFUSED)


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


def requires_feature(name: str) -> Guard:
    """Admit callers whose organization's plan includes the feature `name` (`Feature.switches` of a manifest).

    For what makes or uses it. What was set up before can be looked at and taken away without.
    """

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        require_feature(own_tenant(connection), name)

    # The tests look whether there is such a switch.
    guard.feature = name  # type: ignore[attr-defined]
    return guard


def require_feature(tenant: TenantContext, name: str) -> None:
    """Refuse a tenant whose plan does not include a feature; for ways in that have no guard.

    Raises:
        PermissionDeniedException: that is so (`feature-not-in-plan`).
        LookupError: no manifest declares such a switch.
    """
    if not tenant.allows(name):
        plan = tenant.plan.slug
        raise PermissionDeniedException(
            f"The plan {plan!r} does not include {name!r}.", problem=FEATURE_NOT_IN_PLAN, feature=name, plan=plan
        )
