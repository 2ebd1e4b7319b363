"""From a code to who it is: the exchange at the token endpoint, the ID token, and what userinfo adds.

OpenID Connect Core 1.0 §3.1.3; RFC 9700 for what one has learnt since.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, urlencode

import jwt
import msgspec

from tenantry.domain.identity.sso.discovery import ProviderError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from uuid import UUID

    from tenantry.domain.identity.sso.discovery import Metadata, Providers

__all__ = ("RegisteredClient", "fetch_claims", "values_of")

_LEEWAY = 60
"""Seconds by which a provider's clock may be off."""
_REQUIRED = ["iss", "sub", "aud", "exp", "iat"]
_MOST_SUBJECT = 255
"""Characters (OpenID Connect Core §2)."""
_MOST_VALUES = 1000
"""Of a claim: groups, mostly. A token with more is larger than what is read of an answer."""

_verifier = jwt.PyJWT(options={"enforce_minimum_key_length": True})


@dataclass(frozen=True, slots=True)
class RegisteredClient:
    """Who we are to a provider."""

    id: str
    secret: str
    redirect_uri: str


class _Tokens(msgspec.Struct):
    id_token: str
    access_token: str | None = None


class _Refusal(msgspec.Struct):
    error: str


async def fetch_claims(
    providers: Providers,
    tenant_id: UUID,
    metadata: Metadata,
    client: RegisteredClient,
    *,
    code: str,
    verifier: str,
    nonce: str,
    wanted: Collection[str],
) -> dict[str, Any]:
    """What the provider says of whoever came back with `code`; of `sub` it is sure that it is text.

    Args:
        providers: by which it is asked.
        tenant_id: whose provider it is.
        metadata: of the provider.
        client: who asks.
        code: from the address by which the browser came back.
        verifier: to the challenge that the browser took along (RFC 7636).
        nonce: that it took along.
        wanted: claims for which userinfo is asked, if the ID token does not have them all.

    Raises:
        ProviderError: it is away, or what it says is not for us, not by it, or not of now.
        UnavailableException: too many requests are under way.
    """
    tokens = await _exchange(providers, tenant_id, metadata, client, code=code, verifier=verifier)
    claims = await _verify(providers, tenant_id, metadata, client, tokens, nonce=nonce)
    if (
        metadata.userinfo_endpoint is not None
        and tokens.access_token is not None
        and any(values_of(claims, name) is None for name in wanted)
    ):
        more = await _userinfo(providers, tenant_id, metadata.userinfo_endpoint, tokens.access_token)
        # Of somebody else it is, where a token was put into the place of another (OpenID Connect Core §5.3.2).
        if more.get("sub") != claims["sub"]:
            raise ProviderError("Userinfo is about somebody else than the ID token.")
        if "email" in claims and more.get("email") != claims["email"]:
            # What it says of an address, it says of another one.
            more.pop("email_verified", None)
        claims = {**more, **claims}
    return claims


def values_of(claims: Mapping[str, Any], name: str) -> list[Any] | None:
    """The values of a claim, one or several; None where it is not there.

    A name with dots that is no claim's leads into objects: `realm_access.roles`.
    """
    found: Any = claims
    for part in [name] if name in claims else name.split("."):
        if not isinstance(found, dict) or part not in found:
            return None
        found = found[part]
    if found is None:
        return None
    return found[:_MOST_VALUES] if isinstance(found, list) else [found]


async def _exchange(
    providers: Providers, tenant_id: UUID, metadata: Metadata, client: RegisteredClient, *, code: str, verifier: str
) -> _Tokens:
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": client.redirect_uri,
        "code_verifier": verifier,
    }
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    if metadata.auth_method == "client_secret_basic":
        # Each of the two encoded as in a form first (RFC 6749 §2.3.1): either may have a colon in it.
        pair = f"{quote_plus(client.id)}:{quote_plus(client.secret)}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    else:
        form |= {"client_id": client.id, "client_secret": client.secret}
    answer = await providers.request(
        tenant_id,
        "POST",
        metadata.token_endpoint,
        what="The token endpoint's answer",
        headers=headers,
        content=urlencode(form).encode(),
    )
    if answer.status != 200:
        raise ProviderError(f"The token endpoint has refused: {_refusal(answer.body) or answer.status}.")
    try:
        return msgspec.json.decode(answer.body, type=_Tokens)
    except msgspec.DecodeError:
        raise ProviderError("The token endpoint's answer has no ID token.") from None


def _refusal(body: bytes) -> str | None:
    try:
        error = msgspec.json.decode(body, type=_Refusal).error
    except msgspec.DecodeError:
        return None
    # One of the words of RFC 6749 §5.2, or one of its kind; nothing that somebody could have written into a text.
    return error if error.isascii() and error.replace("_", "").isalnum() and len(error) <= 40 else None


async def _verify(
    providers: Providers, tenant_id: UUID, metadata: Metadata, client: RegisteredClient, tokens: _Tokens, *, nonce: str
) -> dict[str, Any]:
    """The claims of an ID token (OpenID Connect Core §3.1.3.7)."""
    try:
        head = jwt.get_unverified_header(tokens.id_token)
    except jwt.PyJWTError:
        raise ProviderError("The ID token is no JWT.") from None
    algorithm, kid = head.get("alg"), head.get("kid")
    if algorithm not in metadata.algorithms:
        raise ProviderError("The ID token is signed by an algorithm that the provider does not list, or by none.")
    key = await providers.key(tenant_id, metadata, kid=kid, algorithm=algorithm)
    try:
        claims: dict[str, Any] = _verifier.decode(
            tokens.id_token,
            key,
            algorithms=list(metadata.algorithms),
            audience=client.id,
            issuer=metadata.issuer,
            leeway=_LEEWAY,
            options={"require": _REQUIRED},
        )
    except jwt.PyJWTError as error:
        raise ProviderError(f"The ID token is not valid: {_in_words(error)}.") from error
    _check_party(claims, client.id)
    if not isinstance(claims.get("nonce"), str) or not hmac.compare_digest(
        claims["nonce"].encode("utf-8", "surrogatepass"), nonce.encode()
    ):
        raise ProviderError("The ID token is not of this log-in: its nonce is another.")
    if not claims["sub"] or len(claims["sub"]) > _MOST_SUBJECT or not claims["sub"].isprintable():
        raise ProviderError("The ID token's subject is not 1 to 255 characters.")
    if tokens.access_token is not None and "at_hash" in claims:
        _check_access_token(claims["at_hash"], tokens.access_token, key)
    return claims


_REASONS: dict[type[jwt.PyJWTError], str] = {
    jwt.ExpiredSignatureError: "it has expired",
    jwt.InvalidAudienceError: "it is for somebody else (aud)",
    jwt.InvalidIssuerError: "it is of another issuer",
    jwt.ImmatureSignatureError: "it is from the future; whose clock is wrong?",
    jwt.InvalidSignatureError: "the signature is wrong",
    jwt.MissingRequiredClaimError: "it lacks one of iss, sub, aud, exp and iat",
}


def _in_words(error: jwt.PyJWTError) -> str:
    return _REASONS.get(type(error), "it is not as it should be")


def _check_party(claims: Mapping[str, Any], client_id: str) -> None:
    audience, party = claims["aud"], claims.get("azp")
    if (party is not None and party != client_id) or (party is None and audience not in (client_id, [client_id])):
        raise ProviderError("The ID token was issued to another client (azp).")


def _check_access_token(expected: object, access_token: str, key: jwt.PyJWK) -> None:
    try:
        digest = key.Algorithm.compute_hash_digest(access_token.encode())
    except NotImplementedError:
        # EdDSA, of which no specification says what the hash is by.
        return
    wanted = base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=")
    if not isinstance(expected, str) or not hmac.compare_digest(expected.encode("utf-8", "surrogatepass"), wanted):
        raise ProviderError("The access token is not the ID token's (at_hash).")


async def _userinfo(providers: Providers, tenant_id: UUID, url: str, access_token: str) -> dict[str, Any]:
    if not access_token.isascii() or not access_token.isprintable():
        raise ProviderError("The access token is not one that can be sent.")
    answer = await providers.request(
        tenant_id, "GET", url, what="Userinfo", headers={"Authorization": f"Bearer {access_token}"}
    )
    if answer.status != 200:
        raise ProviderError(f"Userinfo was answered with {answer.status}.")
    try:
        return msgspec.json.decode(answer.body, type=dict[str, Any])
    except msgspec.DecodeError:
        raise ProviderError("Userinfo is not a JSON object.") from None
