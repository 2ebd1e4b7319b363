"""How a request gets its transaction, and how a tenant's request gets its tenant.

`RequestTransaction` is opened by the first guard or dependency that needs it, shared by all of them, committed by the
session's provider before the response is sent, and closed by the middleware whatever happened.
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import structlog
from litestar import Request
from litestar.enums import ScopeType
from litestar.exceptions import ImproperlyConfiguredException
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.kernel.errors import (
    NotAuthenticatedException,
    PermissionDeniedException,
    UnavailableException,
    define_problem,
)
from tenantry.kernel.security import (
    API_KEY,
    AUDIENCE_OPERATOR_ACCESS,
    AUDIENCE_TENANT,
    Claims,
    Credential,
    InvalidCredential,
    InvalidToken,
    Tokens,
)
from tenantry.kernel.work import WORK
from tenantry.tenancy.connection import ScopedConnection
from tenantry.tenancy.database import Database, Transaction
from tenantry.tenancy.declared import surround
from tenantry.tenancy.release import served_range
from tenantry.tenancy.replica import ReplicaReads, WithheldAnswer, reads_only

if TYPE_CHECKING:
    from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

    from tenantry.tenancy.admission import Admission, Visit
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.held import HeldAnswer
    from tenantry.tenancy.rates import RateLimiter
    from tenantry.tenancy.registry import TenantRegistry
    from tenantry.tenancy.replica import Replica
    from tenantry.tenancy.scope import Scope as DatabaseScope
    from tenantry.tenancy.use import UseMarks

__all__ = (
    "INVALID_KEY",
    "HostNames",
    "RequestTransaction",
    "TenantMiddleware",
    "TenantRequest",
    "bearer_token",
    "is_safe",
    "keep_request_transaction",
    "own_tenant",
    "provide_connection",
    "provide_session",
    "request_transaction",
    "require_active",
    "require_served",
    "tenant_request",
)

_KEY = "tenantry"
_API_KEY_PREFIX = f"{API_KEY}_"
"""A JWT never begins like that: its header is a JSON object, which in base64url begins with `ey`."""
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class RequestTransaction:
    """At most one transaction per request, in one scope."""

    __slots__ = (
        "_database",
        "_scope",
        "_transaction",
        "claims",
        "is_held",
        "is_reading_again",
        "on_begin",
        "principal",
        "read_only",
    )

    def __init__(self, database: Database | ReplicaReads, *, read_only: bool, claims: Claims | None = None) -> None:
        self._database = database
        self._scope: DatabaseScope | None = None
        self._transaction: Transaction | None = None
        self.read_only = read_only
        self.claims = claims
        self.principal: Any = None
        """Who is asking, once a guard has looked them up."""
        self.is_held = False
        """Whether the commit waits for the answer: see `tenantry.tenancy.held`."""
        self.is_reading_again = False
        """Whether a condition is being looked at, whose lock must not be lost."""
        self.on_begin: Callable[[], Awaitable[None]] | None = None
        """What holds for this request's transaction and ends with it, as a lock does: done in every one it begins."""

    def enter(self, scope: DatabaseScope) -> None:
        """Fix the scope of this request's transaction; a request has one, for good."""
        if self._scope is not None:
            raise RuntimeError("the request already has a scope")
        self._scope = scope

    async def transaction(self) -> Transaction:
        """The request's transaction, begun if it has not been."""
        if self._transaction is None:
            if self._scope is None:
                raise NotAuthenticatedException
            self._transaction = await self._database.begin(self._scope)
            if self.on_begin is not None:
                await self.on_begin()
        return self._transaction

    async def connection(self) -> ScopedConnection:
        """The driver's connection inside the transaction, for hot reads and guards."""
        return (await self.transaction()).connection

    async def session(self) -> AsyncSession:
        return (await self.transaction()).session

    async def pause(self) -> None:
        """Give the connection back for the time of something slow; what comes next begins a new transaction.

        Nothing may have been written yet: it would be rolled back.
        """
        if self.is_reading_again:
            raise RuntimeError("a resource that can be changed on a condition is read without a pause")
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            await transaction.close()

    async def commit(self) -> None:
        """End the transaction and give the connection back, before the response is sent.

        A slow reader of the response thus holds no connection, and a commit that fails is still an error answer.
        """
        transaction = self._transaction
        if transaction is not None:
            if self.is_held:
                await transaction.flush()
                return
            if not self.read_only:
                await transaction.commit()
            await self.close()

    async def settle(self) -> None:
        """Commit what was held back until the answer was there."""
        self.is_held = False
        await self.commit()

    async def close(self, *, failed: bool = False) -> None:
        """Roll back what was not committed; the transaction is over, and cannot be begun again."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            self._scope = None
            await transaction.close(failed=failed)


class TenantRequest(RequestTransaction):
    """The transaction of a tenant's request, with its tenant."""

    __slots__ = ("afterwards", "finishing", "host_tenant", "is_over", "is_stranger", "key_digest", "tenant")

    def __init__(
        self,
        database: Database | ReplicaReads,
        *,
        read_only: bool,
        claims: Claims | None = None,
        host_tenant: str | None = None,
    ) -> None:
        super().__init__(database, read_only=read_only, claims=claims)
        self.tenant: TenantContext | None = None
        self.host_tenant = host_tenant
        """The slug that the host names, if it names one."""
        self.key_digest: bytes | None = None
        """Of the API key that was sent in place of a token; whether there is such a key only its row can say."""
        self.is_stranger = False
        """Whether the key was let in without its being known to be one: see `tenantry.tenancy.rates`."""
        self.is_over = False
        """Whether the database has said that the session has ended, for good, or that there is no such key."""
        self.afterwards: Callable[[], Awaitable[None]] | None = None
        """What is left to do when the answer is out and the connection given back."""
        self.finishing: list[Callable[[HeldAnswer], Awaitable[None]]] = []
        """What belongs into the transaction once the answer is there, if that is held."""

    def enter_tenant(self, tenant: TenantContext) -> None:
        """Take on the tenant, once and for good.

        Raises:
            PermissionDeniedException: it is suspended, archived or gone.
            UnavailableException: it is still being made, or at a revision that this release does not serve.
            NotAuthenticatedException: the host names another.
        """
        require_active(tenant)
        if self.host_tenant is not None and self.host_tenant != tenant.slug:
            raise NotAuthenticatedException(
                "The token is not for the organization that the host names.", invalid_token=True
            )
        self.tenant = tenant
        self.enter(tenant.scope(read_only=self.read_only))


def tenant_request(connection: Any) -> TenantRequest:
    """The tenant's request behind a Litestar connection."""
    found = connection.scope["state"].get(_KEY)
    if not isinstance(found, TenantRequest):
        raise ImproperlyConfiguredException("the route is not behind TenantMiddleware")
    return found


def own_tenant(connection: Any) -> TenantContext:
    """The tenant whose token was sent.

    Raises:
        NotAuthenticatedException: none was: the route is public.
    """
    tenant = tenant_request(connection).tenant
    if tenant is None:
        raise NotAuthenticatedException
    return tenant


def request_transaction(connection: Any) -> RequestTransaction:
    """The request's transaction, of whichever plane."""
    found = connection.scope["state"].get(_KEY)
    if not isinstance(found, RequestTransaction):
        raise ImproperlyConfiguredException("the route is behind no middleware that opens transactions")
    return found


async def provide_session(request: Request[Any, Any, Any]) -> AsyncIterator[AsyncSession]:
    """The request's ORM session; commits after the handler and before the response.

    Advanced Alchemy's own before-send handlers commit too late: tried, a violated deferred constraint answered 201
    with nothing stored. This must stay the only generator among the dependencies: Litestar ends several at once.
    """
    transaction = request_transaction(request)
    yield await transaction.session()
    await transaction.commit()


async def provide_connection(request: Request[Any, Any, Any]) -> AsyncIterator[ScopedConnection]:
    """The driver's connection in the request's transaction, for hot reads; given back before the response is sent."""
    transaction = request_transaction(request)
    yield await transaction.connection()
    await transaction.commit()


def bearer_token(scope: HTTPScope) -> str | None:
    """The bearer token of the Authorization header (RFC 6750 §2.1), or None.

    Raises:
        NotAuthenticatedException: the header is there, but is no bearer token.
    """
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() != b"bearer" or not token:
                raise NotAuthenticatedException("Expected 'Authorization: Bearer <token>'.", invalid_token=True)
            try:
                return token.strip().decode("ascii")
            except UnicodeDecodeError:
                raise NotAuthenticatedException("The bearer token is not ASCII.", invalid_token=True) from None
    return None


def is_safe(scope: HTTPScope) -> bool:
    """Whether the method only reads (RFC 9110 §9.2.1): then the transaction is READ ONLY."""
    return scope["method"] in _SAFE_METHODS


async def keep_request_transaction(
    request: RequestTransaction, app: ASGIApp, scope: Scope, receive: Receive, send: Send
) -> None:
    """Run `app` with `request` as its transaction, and close it whatever happens.

    A cancelled request may have left a statement under way: its connection is closed, not pooled.
    """
    scope["state"][_KEY] = request
    failed = True
    try:
        await app(scope, receive, send)
        failed = False
    except Exception:
        failed = False
        raise
    finally:
        await request.close(failed=failed)


class HostNames:
    """Which tenant a host names by its first label.

    With a base domain, every host below it names one, known or not. Without, a first label that is no known tenant's
    slug names none, so that an API at api.example.com needs no setting.
    """

    def __init__(self, registry: TenantRegistry, base_domain: str | None) -> None:
        self._registry = registry
        self._suffix = f".{base_domain.lower().strip('.')}" if base_domain else None

    def slug(self, scope: HTTPScope) -> str | None:
        host = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1").lower()
        if host.startswith("["):
            return None
        host = host.partition(":")[0].rstrip(".")
        label, dot, _ = host.partition(".")
        if not dot or not label:
            return None
        if self._suffix is not None:
            first, found, rest = host.rpartition(self._suffix)
            return first.partition(".")[0] if found and not rest and first else None
        if label.isdigit():
            try:
                ipaddress.ip_address(host)
            except ValueError:
                pass
            else:
                return None
        return label if self._registry.by_slug(label) is not None else None


class TenantMiddleware:
    """Resolves the bearer token, or the API key in its place, to a tenant, or refuses. There is no default tenant.

    Routes that say `opt={"public": True}` pass without a token, and without a tenant: their handler enters one
    itself, once it has found out which.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        database: Database,
        registry: TenantRegistry,
        tokens: Tokens,
        hosts: HostNames,
        rates: RateLimiter | None = None,
        admission: Admission | None = None,
        replica: Replica | None = None,
        use_marks: UseMarks | None = None,
    ) -> None:
        """Without `admission`, as many requests of a tenant are worked on as there are; `use_marks` is told whom this
        process serves."""
        self.app = app
        self._rates = rates
        self._admission = admission
        self._use_marks = use_marks
        self._database = database
        self._replica = replica
        self._registry = registry
        self._tokens = tokens
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            raise ImproperlyConfiguredException("only HTTP routes can be a tenant's")
        WORK.set(f"{scope['method']} {scope['path_template']}")
        if self._replica is not None and self._replica.is_open and reads_only(scope):
            reads = ReplicaReads(self._replica)
            answer = WithheldAnswer(send, reads)
            await self._serve(reads, scope, receive, answer)
            if not answer.is_withheld:
                return
            # It was counted, and let in.
            await self._serve(self._database, scope, receive, send, again=True)
            return
        await self._serve(self._database, scope, receive, send)

    async def _serve(
        self,
        database: Database | ReplicaReads,
        scope: HTTPScope,
        receive: Receive,
        send: Send,
        *,
        again: bool = False,
    ) -> None:
        request = TenantRequest(database, read_only=is_safe(scope), host_tenant=self._hosts.slug(scope))
        app = self.app
        visit: Visit | None = None
        if not scope["route_handler"].opt.get("public"):
            tenant = await self._authenticate(scope, request)
            if self._rates is not None and not again:
                await self._rates.admit(request, scope)
            app = surround(app, scope, request)
            # What a limit has refused takes nobody's place.
            if self._admission is not None:
                visit = await self._admission.enter(tenant, scope, send)
                send = visit.send
        try:
            work = keep_request_transaction(request, app, scope, receive, send)
            await (work if visit is None else visit.work(work))
        finally:
            if visit is not None:
                visit.leave()
            if self._rates is not None:
                self._rates.settle(request)
            if self._use_marks is not None and request.tenant is not None:
                # Now that it is counted.
                self._use_marks.note(request.tenant.id)
        if request.afterwards is not None:
            await request.afterwards()

    async def _authenticate(self, scope: HTTPScope, request: TenantRequest) -> TenantContext:
        token = bearer_token(scope)
        if token is None:
            raise NotAuthenticatedException
        if token.startswith(_API_KEY_PREFIX):
            tenant = self._tenant_of_key(token, request)
        else:
            tenant = await self._tenant_of_token(token, request)
        request.enter_tenant(tenant)
        scope["state"]["tenant"] = tenant
        structlog.contextvars.bind_contextvars(tenant=tenant.slug)
        return tenant

    async def _tenant_of_token(self, token: str, request: TenantRequest) -> TenantContext:
        try:
            claims = self._verify(token)
        except InvalidToken as error:
            raise NotAuthenticatedException("The token is not valid.", invalid_token=True) from error
        # Another process has signed it perhaps, for an organization that it has made a moment ago.
        tenant = await self._registry.find_id(claims.tid) if claims.tid is not None else None
        if tenant is None:
            raise NotAuthenticatedException("The token is not valid.", invalid_token=True)
        request.claims = claims
        if claims.opr == "read":
            request.read_only = True
            return tenant.reading_only()
        return tenant

    def _verify(self, token: str) -> Claims:
        """A user's token, or an operator's who was let in: seldom enough that it may cost a signature more."""
        try:
            return self._tokens.verify(token, AUDIENCE_TENANT)
        except InvalidToken as error:
            if error.reason != "audience":
                raise
        return self._tokens.verify(token, AUDIENCE_OPERATOR_ACCESS)

    def _tenant_of_key(self, token: str, request: TenantRequest) -> TenantContext:
        try:
            parsed = Credential.parse(token, API_KEY)
        except InvalidCredential as error:
            raise NotAuthenticatedException(INVALID_KEY, invalid_token=True) from error
        tenant = self._registry.by_id(parsed.tenant_id)
        # Before anything is said of the tenant: nobody knows yet whether the secret is one.
        if tenant is None or (request.host_tenant is not None and request.host_tenant != tenant.slug):
            raise NotAuthenticatedException(INVALID_KEY, invalid_token=True)
        request.key_digest = parsed.digest
        return tenant


INVALID_KEY = "The API key is not valid."
"""Whatever is wrong with it: unknown, expired, revoked, of somebody who is no longer let in, or for another host."""


TENANT_SUSPENDED = define_problem(
    "tenant-suspended",
    403,
    "Organization suspended",
    "The organization is suspended. Nothing is lost; the platform's operators can resume it.",
)
TENANT_UNAVAILABLE = define_problem(
    "tenant-unavailable", 403, "Organization not available", "The organization is archived, or on its way out."
)
TENANT_REVISION = define_problem(
    "tenant-revision",
    503,
    "Organization between two releases",
    "The organization's schema is at `revision`, and the release that was asked serves those from `oldestServed` to "
    "`newestServed`: the one will be migrated, or the other replaced. Nothing is lost, and others are served. "
    "Retry-After says when to try again, in seconds.",
)
_BETWEEN_RELEASES = 5
"""Seconds: schemas are migrated and processes replaced in seconds, not in one."""


def require_active(tenant: TenantContext) -> None:
    """Refuse a tenant that may not be served now.

    Raises:
        PermissionDeniedException: suspended, archived or gone.
        UnavailableException: still being made, or at a revision that this release does not serve.
    """
    if tenant.is_active:
        require_served(tenant)
        return
    if tenant.status == "suspended":
        raise PermissionDeniedException("The organization is suspended.", problem=TENANT_SUSPENDED)
    if tenant.status == "provisioning":
        raise UnavailableException("The organization is still being set up.")
    raise PermissionDeniedException("The organization is not available.", problem=TENANT_UNAVAILABLE)


def require_served(tenant: TenantContext) -> None:
    """Refuse a tenant whose schema this release does not know how to read.

    Raises:
        UnavailableException: that is so; the problem names both.
    """
    if tenant.served:
        return
    served = served_range()
    raise UnavailableException(
        f"The organization is at revision {tenant.revision or 'none'}; this release serves {served.oldest} to"
        f" {served.newest}.",
        problem=TENANT_REVISION,
        retry_after=_BETWEEN_RELEASES,
        revision=tenant.revision,
        oldestServed=served.oldest,
        newestServed=served.newest,
    )
