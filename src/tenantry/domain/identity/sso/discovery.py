"""What providers say of themselves: their discovery documents and their keys, fetched, checked and kept for a while.

Fetched by the guarded client alone: it is a customer who names the address. Nothing is kept across organizations, so
that none learns from our speed who another one's provider is.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import jwt
import msgspec

from tenantry.kernel.errors import UnavailableException
from tenantry.kernel.outbound import OutboundClient, OutboundError, RefusedAddressError, check_url

if TYPE_CHECKING:
    from uuid import UUID

    from tenantry.kernel.outbound import Answer
    from tenantry.kernel.settings import Settings

__all__ = ("ALGORITHMS", "AuthMethod", "Metadata", "ProviderError", "Providers")

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures only: `none` is nobody's, and an HMAC by the client's secret anybody's who has seen that (RFC 8725)."""

AuthMethod = Literal["client_secret_basic", "client_secret_post"]
_AUTH_METHODS: tuple[AuthMethod, ...] = ("client_secret_basic", "client_secret_post")

_TTL = 3600.0
"""Seconds for which what a provider said is taken as it was."""
_COOL_DOWN = 30.0
"""Seconds between two fetches of a provider's keys for one that was not among them: whoever makes up ids of keys would
otherwise have us ask at each log-in."""
_FAILED = 5.0
"""Seconds for which a provider that failed is not asked again."""
_KEPT = 1000
"""Providers of which a process remembers what they said; then the one that was used the longest ago is forgotten."""
_MOST_KEYS = 100
_DOCUMENT = 262_144
"""Bytes of a document; the largest in use, of a provider with a certificate for each key, are a tenth of it."""
_AT_ONCE, _AT_ONCE_PER_TENANT = 200, 20
"""Requests that a process has under way: a provider that swallows them costs nobody else a log-in."""


class ProviderError(Exception):
    """The provider is away, or what it says cannot be used. The text is for the organization's administrators."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What there is to know of a provider (OpenID Connect Discovery §3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    auth_method: AuthMethod
    algorithms: tuple[str, ...]
    names_itself: bool
    """Whether each of its answers says whose it is (RFC 9207)."""


class _Document(msgspec.Struct):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    response_types_supported: list[str] | None = None
    token_endpoint_auth_methods_supported: list[str] | None = None
    id_token_signing_alg_values_supported: list[str] | None = None
    code_challenge_methods_supported: list[str] | None = None
    authorization_response_iss_parameter_supported: bool = False


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


_Found = TypeVar("_Found", _Document, _KeySet)
_T = TypeVar("_T")


@dataclass(slots=True)
class _Entry:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    metadata: Metadata | None = None
    metadata_at: float = 0.0
    keys: list[dict[str, Any]] | None = None
    keys_at: float = 0.0
    failure: str | None = None
    failed_at: float = 0.0


class Providers:
    """The providers of all organizations, as this process knows them."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is in seconds, and never goes back."""
        self._timeout = settings.outbound_timeout
        self._besides = tuple(map(ip_network, settings.outbound_networks))
        self._clock = clock
        self._entries: OrderedDict[tuple[UUID, str], _Entry] = OrderedDict()
        self._under_way: dict[UUID, int] = {}

    async def metadata(self, tenant_id: UUID, issuer: str, *, anew: bool = False) -> Metadata:
        """What the provider says of itself, at most an hour old; `anew`, what it says now.

        Raises:
            ProviderError: it is away, or says what cannot be.
            UnavailableException: too many requests are under way.
        """
        entry = self._entry(tenant_id, issuer)
        async with entry.lock:
            if anew:
                entry.metadata = entry.keys = entry.failure = None
            if entry.metadata is None or self._clock() - entry.metadata_at > _TTL:
                entry.metadata = await self._once(entry, self._fetch_metadata(tenant_id, issuer))
                entry.metadata_at = self._clock()
            return entry.metadata

    async def key(self, tenant_id: UUID, metadata: Metadata, *, kid: str | None, algorithm: str) -> jwt.PyJWK:
        """The provider's key of that id. One that is not known makes its keys be fetched anew, but not all the time.

        Raises:
            ProviderError: there is none such, or the keys cannot be had.
            UnavailableException: too many requests are under way.
        """
        entry = self._entry(tenant_id, metadata.issuer)
        async with entry.lock:
            age = self._clock() - entry.keys_at
            if entry.keys is not None and age <= _TTL:
                if (found := _choose(entry.keys, kid, algorithm)) is not None:
                    return found
                if age < _COOL_DOWN:
                    raise ProviderError("The ID token is signed by a key that the provider does not list.")
            entry.keys = await self._once(entry, self._fetch_keys(tenant_id, metadata.jwks_uri))
            entry.keys_at = self._clock()
            if (found := _choose(entry.keys, kid, algorithm)) is None:
                raise ProviderError("The ID token is signed by a key that the provider does not list.")
            return found

    async def request(
        self, tenant_id: UUID, method: str, url: str, *, what: str, headers: Mapping[str, str], content: bytes = b""
    ) -> Answer:
        """Ask a provider; `what` is asked for, as the beginning of a sentence.

        Raises:
            ProviderError: there was no answer, or too long a one.
            UnavailableException: too many requests are under way.
        """
        async with self._place(tenant_id):
            try:
                async with OutboundClient(timeout=self._timeout, besides=self._besides, most=_DOCUMENT) as client:
                    answer = await client.request(
                        method, url, headers={"Accept": "application/json", **headers}, content=content
                    )
            except (RefusedAddressError, OutboundError) as error:
                raise ProviderError(f"{what} could not be fetched. {error}") from error
        if answer.is_cut:
            raise ProviderError(f"{what} is too long.")
        return answer

    def _entry(self, tenant_id: UUID, issuer: str) -> _Entry:
        entry = self._entries.setdefault((tenant_id, issuer), _Entry())
        self._entries.move_to_end((tenant_id, issuer))
        if len(self._entries) > _KEPT:
            self._entries.popitem(last=False)
        return entry

    async def _once(self, entry: _Entry, fetching: Coroutine[Any, Any, _T]) -> _T:
        """What a fetch comes to; a failure is one for all who ask in the next seconds."""
        if entry.failure is not None and self._clock() - entry.failed_at < _FAILED:
            fetching.close()
            raise ProviderError(entry.failure)
        entry.failure = None
        try:
            return await fetching
        except ProviderError as error:
            entry.failure, entry.failed_at = str(error), self._clock()
            raise

    @asynccontextmanager
    async def _place(self, tenant_id: UUID) -> AsyncIterator[None]:
        own = self._under_way.get(tenant_id, 0)
        if own >= _AT_ONCE_PER_TENANT or sum(self._under_way.values()) >= _AT_ONCE:
            raise UnavailableException("Too many people are being signed in by providers.")
        self._under_way[tenant_id] = own + 1
        try:
            yield
        finally:
            self._under_way[tenant_id] -= 1
            if not self._under_way[tenant_id]:
                del self._under_way[tenant_id]

    async def _fetch_metadata(self, tenant_id: UUID, issuer: str) -> Metadata:
        url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        document = await self._document(tenant_id, url, "The discovery document", _Document)
        # To the letter (OpenID Connect Discovery §4.3): whoever may speak for another issuer may sign anybody in.
        if document.issuer != issuer:
            raise ProviderError("The discovery document names another issuer than the connection.")
        for endpoint in (
            document.authorization_endpoint,
            document.token_endpoint,
            document.jwks_uri,
            document.userinfo_endpoint,
        ):
            try:
                if endpoint is not None:
                    check_url(endpoint, self._besides)
            except RefusedAddressError as error:
                raise ProviderError(f"The discovery document names an address that cannot be used. {error}") from None
        if "code" not in (document.response_types_supported or ["code"]):
            raise ProviderError("The provider does not offer the authorization code flow.")
        if "S256" not in (document.code_challenge_methods_supported or ["S256"]):
            raise ProviderError("The provider offers PKCE, but not by S256.")
        return Metadata(
            issuer=issuer,
            authorization_endpoint=document.authorization_endpoint,
            token_endpoint=document.token_endpoint,
            jwks_uri=document.jwks_uri,
            userinfo_endpoint=document.userinfo_endpoint,
            auth_method=_auth_method(document),
            algorithms=_algorithms(document),
            names_itself=document.authorization_response_iss_parameter_supported,
        )

    async def _fetch_keys(self, tenant_id: UUID, url: str) -> list[dict[str, Any]]:
        return (await self._document(tenant_id, url, "The provider's set of keys", _KeySet)).keys[:_MOST_KEYS]

    async def _document(self, tenant_id: UUID, url: str, what: str, form: type[_Found]) -> _Found:
        answer = await self.request(tenant_id, "GET", url, what=what, headers={})
        if answer.status != 200:
            raise ProviderError(f"{what} was answered with {answer.status}.")
        try:
            return msgspec.json.decode(answer.body, type=form)
        except msgspec.DecodeError as error:
            raise ProviderError(f"{what} is not as it should be. {_in_short(error)}") from None


def _auth_method(document: _Document) -> AuthMethod:
    # Left out, it is the first (OpenID Connect Discovery §3).
    offered = document.token_endpoint_auth_methods_supported or _AUTH_METHODS[:1]
    for method in _AUTH_METHODS:
        if method in offered:
            return method
    raise ProviderError("The provider's token endpoint takes no client secret.")


def _algorithms(document: _Document) -> tuple[str, ...]:
    offered = document.id_token_signing_alg_values_supported or ["RS256"]
    if found := tuple(algorithm for algorithm in ALGORITHMS if algorithm in offered):
        return found
    raise ProviderError("The provider signs ID tokens by no algorithm that is taken here.")


def _choose(keys: list[dict[str, Any]], kid: str | None, algorithm: str) -> jwt.PyJWK | None:
    """The key by which a token was signed. Without an id, the only one there is (OpenID Connect Core §10.1)."""
    fitting = [key for key in keys if kid is None or key.get("kid") == kid]
    found = [key for each in fitting if (key := _usable(each, algorithm)) is not None]
    return found[0] if found and (kid is not None or len(found) == 1) else None


def _usable(key: dict[str, Any], algorithm: str) -> jwt.PyJWK | None:
    if key.get("use", "sig") != "sig" or key.get("alg", algorithm) != algorithm:
        return None
    # Where the set has a private key in it by mistake, that is none to verify by.
    public = {name: value for name, value in key.items() if name not in _PRIVATE}
    try:
        return jwt.PyJWK(public, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        # Of another kind than the algorithm's, or of one that nobody here knows: providers list those as well.
        return None


_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


def _in_short(error: Exception) -> str:
    return str(error)[:200]
