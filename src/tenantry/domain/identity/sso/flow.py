"""Signing in by a provider: the way there, the way back, and the trade of a code for tokens.

Three hops, each bound to the one before. The `state` that the provider hands back names the organization, and is worth
something only together with a cookie that the browser was given when it left, sealed, in which the rest is; the code
that the front end is handed is worth something only together with a verifier that its page has kept. Nothing is written
down until somebody comes back, so nobody fills a table by setting off.

As in the sessions' service, no transaction is open while a provider is asked.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit
from uuid import UUID

import msgspec
import structlog
from advanced_alchemy.exceptions import IntegrityError
from sqlalchemy import func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import selectinload, undefer_group
from uuid_utils.compat import uuid7

from tenantry.domain.identity.enforcement import domain_of, start_path
from tenantry.domain.identity.sso.discovery import ProviderError
from tenantry.domain.identity.sso.models import SsoConnection, SsoDomain, SsoLogin
from tenantry.domain.identity.sso.people import Refused, find_or_make, wanted_claims
from tenantry.domain.identity.sso.service import secret_purpose
from tenantry.domain.identity.sso.verification import RegisteredClient, fetch_claims
from tenantry.domain.identity.users.models import User
from tenantry.kernel.errors import (
    ClientException,
    ResourceNotFoundException,
    UnavailableException,
    define_problem,
)
from tenantry.kernel.schema import normalize_email
from tenantry.kernel.security import (
    SSO_CODE,
    SSO_STATE,
    Credential,
    InvalidCredential,
    SealError,
)
from tenantry.tenancy.guards import require_feature
from tenantry.tenancy.request import require_active, require_served
from tenantry.tenancy.scope import EMPTY_SCOPE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Select

    from tenantry.domain.identity.sessions.client import Client
    from tenantry.domain.identity.sessions.service import Authenticator, Issued
    from tenantry.domain.identity.sso.discovery import Providers
    from tenantry.kernel.security import ParsedCredential, Vault
    from tenantry.kernel.settings import Settings
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.registry import TenantRegistry

__all__ = ("LOGIN_LIFETIME", "Arrival", "Departure", "SingleSignOn", "redirect_uri")

_log = structlog.get_logger(__name__)

SSO_UNAVAILABLE = define_problem(
    "sso-unavailable",
    404,
    "No single sign-on here",
    "There is no such organization, or none that has people of this address, or by this connection, sign in by a "
    "provider.",
)
SSO_NOT_CONFIGURED = define_problem(
    "sso-not-configured",
    503,
    "No single sign-on in this deployment",
    "Browsers have to know where to come back to: the deployment's operators set TENANTRY_API_URL and "
    "TENANTRY_APP_URL.",
)
SSO_STATE_INVALID = define_problem(
    "sso-state-invalid",
    400,
    "Log-in not begun here",
    "The log-in was begun in another browser, too long ago, or was ended already. Begin again.",
)
SSO_CODE_INVALID = define_problem(
    "sso-code-invalid",
    400,
    "Code not valid",
    "The code was traded already, has expired, never was one, or is another page's: the verifier does not answer its "
    "challenge. Begin again.",
)

LOGIN_LIFETIME = 600
"""Seconds that somebody may take to sign in at the provider."""
_CODE_LIFETIME = 60
"""Seconds in which the front end trades the code that it was handed."""
_SEAL_PURPOSE = "sso-start"
_PAGE = "sso"
"""Of the front end (TENANTRY_APP_URL): where the browser ends up."""
_CALLBACK = "/api/auth/sso/callback"
_NOT_FOR_NOW = 3600
"""Seconds, for Retry-After: it is somebody's decision."""
_NOTED = datetime.timedelta(seconds=5)
_WORD = re.compile(r"[a-z_]{1,40}")


class _Start(msgspec.Struct):
    """What a browser that has left carries with it, sealed."""

    state: bytes
    """Digest of the state that comes back with it."""
    connection_id: UUID
    provider: bytes
    """Digest of the issuer and the client: the browser was sent to that one."""
    nonce: str
    verifier: str
    challenge: str
    """Of the front end."""
    expires: int


@dataclass(frozen=True, slots=True)
class Departure:
    """Where a browser is sent, and the cookie that it comes back with."""

    url: str
    cookie: str
    value: str
    is_secure: bool


@dataclass(frozen=True, slots=True)
class Arrival:
    """Where a browser that came back is sent, and the cookie that it is to forget."""

    url: str
    cookie: str
    is_secure: bool


def redirect_uri(settings: Settings) -> str | None:
    """The one address to which all providers send browsers back, or None where the API's own is not known."""
    return None if settings.api_url is None else f"{settings.api_url}{_CALLBACK}"


class SingleSignOn:
    """Sends browsers to providers, and takes them in when they come back."""

    def __init__(
        self,
        *,
        database: Database,
        registry: TenantRegistry,
        authenticator: Authenticator,
        settings: Settings,
        vault: Vault,
        providers: Providers,
    ) -> None:
        self._database = database
        self._registry = registry
        self._authenticator = authenticator
        self._settings = settings
        self._vault = vault
        self._providers = providers

    async def locate(self, slug: str, *, email: str | None, connection_id: UUID | None, challenge: str) -> str:
        """Where the browser is to go, to begin.

        By which connection, the domain of an address says; whether somebody has that address, nobody is told.

        Raises:
            ResourceNotFoundException: there is no such organization, or no connection that is meant.
            UnavailableException: the deployment's addresses are not set; or the organization is at a revision that this
                release does not serve.
            ValidationFailedException: the address is none.
        """
        self._require_configured()
        domain = domain_of(normalize_email(email)) if email is not None else None
        tenant = await self._tenant(slug)
        found = await self._connection(tenant, _meant(domain, connection_id))
        if tenant is None or found is None:
            raise ResourceNotFoundException(problem=SSO_UNAVAILABLE)
        query = urlencode({"codeChallenge": challenge})
        return f"{self._settings.api_url}{start_path(tenant, found.id)}&{query}"

    async def start(self, slug: str, connection_id: UUID, challenge: str) -> Departure:
        """Send a browser to the provider.

        Raises:
            ResourceNotFoundException: there is no such organization or connection.
            UnavailableException: as `locate`; or the provider is away, or says what cannot be used.
        """
        callback = self._require_configured()
        tenant = await self._tenant(slug)
        connection = await self._connection(tenant, _meant(None, connection_id))
        if tenant is None or connection is None:
            raise ResourceNotFoundException(problem=SSO_UNAVAILABLE)
        try:
            metadata = await self._providers.metadata(tenant.id, connection.issuer)
        except ProviderError as error:
            await self._note_failure(tenant, connection.id, error)
            raise UnavailableException("The organization's provider cannot be used at the moment.") from error
        state, digest = Credential.new(SSO_STATE, tenant.id)
        start = _Start(
            state=digest,
            connection_id=connection.id,
            provider=_provider_of(connection),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(32),
            challenge=challenge,
            expires=int(time.time()) + LOGIN_LIFETIME,
        )
        query = urlencode(
            {
                "response_type": "code",
                "client_id": connection.client_id,
                "redirect_uri": callback,
                "scope": " ".join(connection.scopes),
                "state": state,
                "nonce": start.nonce,
                "code_challenge": _challenge_of(start.verifier),
                "code_challenge_method": "S256",
            }
        )
        # Where a provider's endpoint has a query of its own, it stays (RFC 6749 §3.1).
        joint = "&" if urlsplit(metadata.authorization_endpoint).query else "?"
        sealed = self._vault.seal(msgspec.json.encode(start), purpose=_SEAL_PURPOSE, owner=tenant.id)
        return Departure(
            url=f"{metadata.authorization_endpoint}{joint}{query}",
            cookie=self._cookie(digest),
            value=base64.urlsafe_b64encode(sealed).rstrip(b"=").decode(),
            is_secure=self._is_secure,
        )

    async def arrive(
        self, *, state: str, code: str | None, error: str | None, issuer: str | None, cookies: Mapping[str, str]
    ) -> Arrival:
        """Take in a browser that came back, and send it on to the front end, with a code or with what went wrong.

        Raises:
            ClientException: it never left, it left too long ago, or it has come back before.
            PermissionDeniedException: the organization is suspended, archived or gone.
            UnavailableException: as `locate`.
        """
        callback = self._require_configured()
        tenant, parsed = self._parse(state, SSO_STATE, SSO_STATE_INVALID)
        cookie = self._cookie(parsed.digest)
        start = self._open(tenant, parsed, cookies.get(cookie))
        require_active(tenant)
        login_id = await self._use_up(tenant, start)
        connection = await self._connection(tenant, _meant(None, start.connection_id))
        if connection is None or _provider_of(connection) != start.provider:
            raise ClientException(problem=SSO_STATE_INVALID)
        try:
            words = await self._sign_in(tenant, connection, start, login_id, callback, code, error, issuer)
        except ProviderError as failure:
            await self._note_failure(tenant, connection.id, failure)
            words = {"error": "sso-provider"}
        except Refused as refused:
            words = {"error": "sso-refused", "reason": refused.reason}
        page = self._settings.page(_PAGE, tenant=tenant.slug)
        # In the fragment, which browsers keep to themselves: no server on the way, and no log of one, gets to see it.
        return Arrival(url=f"{page}#{urlencode(words)}", cookie=cookie, is_secure=self._is_secure)

    async def trade(self, code: str, verifier: str, *, host_tenant: str | None, client: Client) -> Issued:
        """Trade a code for tokens, once, for the page that began.

        Raises:
            ClientException: it is not valid, or the verifier is not the page's.
            PermissionDeniedException: the organization is suspended, archived or gone, or its plan has no such log-in
                any more.
            UnavailableException: it is at a revision that this release does not serve.
        """
        tenant, parsed = self._parse(code, SSO_CODE, SSO_CODE_INVALID)
        if host_tenant is not None and host_tenant != tenant.slug:
            raise ClientException(problem=SSO_CODE_INVALID)
        require_active(tenant)
        require_feature(tenant, "sso")
        async with self._database.transaction(tenant.write_scope) as transaction:
            session = transaction.session
            user_id = await session.scalar(
                update(SsoLogin)
                .where(
                    SsoLogin.code_digest == parsed.digest,
                    # A wrong verifier does not use the code up: whoever has got hold of one cannot spoil it either.
                    SsoLogin.code_challenge == _challenge_of(verifier),
                    SsoLogin.traded_at.is_(None),
                    SsoLogin.expires_at > func.now(),
                )
                .values(traded_at=func.now())
                .returning(SsoLogin.user_id)
            )
            signed_in = await session.scalar(
                update(User)
                .where(User.id == user_id, User.is_active)
                .values(last_login_at=func.now())
                .returning(User.id)
            )
            if signed_in is None:
                raise ClientException(problem=SSO_CODE_INVALID)
            return await self._authenticator.open_session(session, tenant, signed_in, client=client)

    async def _sign_in(
        self,
        tenant: TenantContext,
        connection: SsoConnection,
        start: _Start,
        login_id: UUID,
        callback: str,
        code: str | None,
        error: str | None,
        issuer: str | None,
    ) -> dict[str, str]:
        """What the front end is told.

        Raises:
            ProviderError: the provider is away, or says what cannot be.
            Refused: it is somebody who may not come in.
        """
        if not tenant.allows("sso"):
            raise Refused("not-in-plan")
        metadata = await self._providers.metadata(tenant.id, connection.issuer)
        # Before the code is sent anywhere, and before an error is believed: it may be another provider's (RFC 9207).
        if (issuer is not None or metadata.names_itself) and issuer != metadata.issuer:
            raise ProviderError("What came back was not of the connection's issuer (iss).")
        if error is not None:
            if error == "access_denied":
                return {"error": "sso-denied"}
            raise ProviderError(f"The provider has refused: {error if _WORD.fullmatch(error) else 'an error'}.")
        if not code:
            raise ProviderError("The browser came back without a code.")
        claims = await fetch_claims(
            self._providers,
            tenant.id,
            metadata,
            RegisteredClient(connection.client_id, self._secret(tenant, connection), callback),
            code=code,
            verifier=start.verifier,
            nonce=start.nonce,
            wanted=wanted_claims(connection),
        )
        try:
            text_ = await self._admit(tenant, start, login_id, claims)
        except IntegrityError:
            # The same person by another window: the account and the link that this one was to make are there now.
            text_ = await self._admit(tenant, start, login_id, claims)
        return {"code": text_}

    async def _admit(self, tenant: TenantContext, start: _Start, login_id: UUID, claims: dict[str, Any]) -> str:
        text_, digest = Credential.new(SSO_CODE, tenant.id)
        now = datetime.datetime.now(datetime.UTC)
        async with self._database.transaction(tenant.write_scope) as transaction:
            session = transaction.session
            connection = await session.scalar(_meant(None, start.connection_id).with_for_update(of=SsoConnection))
            if connection is None or _provider_of(connection) != start.provider:
                raise ProviderError("The connection was changed meanwhile.")
            user = await find_or_make(session, connection, claims)
            connection.last_used_at = now
            connection.last_failed_at = connection.last_failure = None
            await session.flush()
            await session.execute(
                update(SsoLogin)
                .where(SsoLogin.id == login_id)
                .values(
                    user_id=user.id,
                    code_digest=digest,
                    code_challenge=start.challenge,
                    expires_at=now + datetime.timedelta(seconds=_CODE_LIFETIME),
                )
            )
        return text_

    async def _use_up(self, tenant: TenantContext, start: _Start) -> UUID:
        """Write down that this browser came back: it cannot do so again.

        Raises:
            ClientException: it has, or the connection is gone.
        """
        async with self._database.transaction(tenant.write_scope) as transaction:
            there = await transaction.session.scalar(
                select(SsoConnection.id).where(SsoConnection.id == start.connection_id).with_for_update(read=True)
            )
            if there is None:
                raise ClientException(problem=SSO_STATE_INVALID)
            login_id: UUID | None = await transaction.session.scalar(
                insert(SsoLogin)
                .values(
                    id=uuid7(),
                    connection_id=start.connection_id,
                    state_digest=start.state,
                    expires_at=datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=LOGIN_LIFETIME),
                )
                .on_conflict_do_nothing(index_elements=["state_digest"])
                .returning(SsoLogin.id)
            )
        if login_id is None:
            raise ClientException(problem=SSO_STATE_INVALID)
        return login_id

    async def _note_failure(self, tenant: TenantContext, connection_id: UUID, error: ProviderError) -> None:
        _log.warning("a provider failed", tenant=tenant.slug, connection=str(connection_id), error=str(error))
        told = str(error)[:500]
        async with self._database.transaction(tenant.write_scope) as transaction:
            await transaction.session.execute(
                update(SsoConnection)
                .where(
                    SsoConnection.id == connection_id,
                    # Strangers set off as well: a provider that is away is not to be a write for each of them.
                    or_(
                        SsoConnection.last_failed_at.is_(None),
                        SsoConnection.last_failed_at < func.now() - _NOTED,
                        SsoConnection.last_failure != told,
                    ),
                )
                .values(last_failed_at=func.now(), last_failure=told)
            )

    async def _tenant(self, slug: str) -> TenantContext | None:
        tenant = await self._registry.find_slug(slug)
        if tenant is None or not tenant.is_active or not tenant.allows("sso"):
            return None
        require_served(tenant)
        return tenant

    async def _connection(self, tenant: TenantContext | None, statement: Select[SsoConnection]) -> SsoConnection | None:
        async with self._database.transaction(EMPTY_SCOPE if tenant is None else tenant.read_scope) as transaction:
            if tenant is None:
                # As many round trips as for a tenant that exists.
                await transaction.session.execute(text("SELECT 1"))
                return None
            found = (await transaction.session.scalars(statement.limit(2))).all()
            # Of several, none is meant.
            return found[0] if len(found) == 1 else None

    def _parse(self, text_: str, kind: str, problem: Any) -> tuple[TenantContext, ParsedCredential]:
        try:
            parsed = Credential.parse(text_, kind)
        except InvalidCredential as error:
            raise ClientException(problem=problem) from error
        tenant = self._registry.by_id(parsed.tenant_id)
        if tenant is None:
            raise ClientException(problem=problem)
        return tenant, parsed

    def _open(self, tenant: TenantContext, state: ParsedCredential, value: str | None) -> _Start:
        """What the browser has carried.

        Raises:
            ClientException: nothing, or not that of this state, or for too long.
        """
        if value is None:
            raise ClientException(problem=SSO_STATE_INVALID)
        try:
            sealed = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
            start = msgspec.json.decode(self._vault.unseal(sealed, purpose=_SEAL_PURPOSE, owner=tenant.id), type=_Start)
        except (ValueError, SealError, msgspec.DecodeError) as error:
            raise ClientException(problem=SSO_STATE_INVALID) from error
        if not secrets.compare_digest(start.state, state.digest) or start.expires < time.time():
            raise ClientException(problem=SSO_STATE_INVALID)
        return start

    def _secret(self, tenant: TenantContext, connection: SsoConnection) -> str:
        try:
            plain = self._vault.unseal(connection.client_secret, purpose=secret_purpose(tenant.id), owner=connection.id)
        except SealError as error:
            _log.warning("a client's secret cannot be unsealed", connection=str(connection.id))
            raise ProviderError("The client's secret cannot be read any more: set it anew.") from error
        return plain.decode()

    def _require_configured(self) -> str:
        callback = redirect_uri(self._settings)
        if callback is None or self._settings.app_url is None:
            raise UnavailableException(problem=SSO_NOT_CONFIGURED, retry_after=_NOT_FOR_NOW)
        return callback

    @property
    def _is_secure(self) -> bool:
        return (self._settings.api_url or "").startswith("https:")

    def _cookie(self, digest: bytes) -> str:
        # One for each log-in: two windows do not end one another's. With the prefix no neighbour of our host can set it
        # (RFC 6265bis §4.1.3.2): a cookie that somebody plants would sign people in as somebody else.
        return f"{'__Host-' if self._is_secure else ''}tenantry-sso-{digest[:8].hex()}"


def _meant(domain: str | None, connection_id: UUID | None) -> Select[SsoConnection]:
    """The connections that may be meant."""
    found = (
        select(SsoConnection)
        .where(SsoConnection.is_enabled)
        .options(undefer_group("secret"), selectinload(SsoConnection.domains), selectinload(SsoConnection.grants))
    )
    if connection_id is not None:
        found = found.where(SsoConnection.id == connection_id)
    if domain is not None:
        found = found.where(SsoConnection.id.in_(select(SsoDomain.connection_id).where(SsoDomain.domain == domain)))
    return found


def _provider_of(connection: SsoConnection) -> bytes:
    return hashlib.sha256(f"{connection.issuer}\0{connection.client_id}".encode()).digest()


def _challenge_of(verifier: str) -> str:
    """Of RFC 7636 §4.2."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
