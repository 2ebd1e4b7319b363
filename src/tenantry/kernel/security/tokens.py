"""Access tokens: JWT (RFC 7519) signed with Ed25519, for one of three audiences that never mix.

What is accepted is narrower than what the standards allow, since every token is our own: one algorithm, three header
fields, one spelling of each segment, no claim unknown.
"""

from __future__ import annotations

import base64
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Final, Literal
from uuid import UUID, uuid4

import jwt
import msgspec

from tenantry.kernel.security.keyring import Keyring

__all__ = (
    "AUDIENCE_OPERATOR_ACCESS",
    "AUDIENCE_PLATFORM",
    "AUDIENCE_TENANT",
    "MAX_TOKEN_LENGTH",
    "Claims",
    "InvalidToken",
    "Tokens",
)

AUDIENCE_TENANT: Final = "tenantry:tenant"
AUDIENCE_PLATFORM: Final = "tenantry:platform"
AUDIENCE_OPERATOR_ACCESS: Final = "tenantry:operator-access"
"""An operator in one tenant. Not the tenants' audience, since other services verify that as their users' tokens."""

MAX_TOKEN_LENGTH: Final = 4096
"""Characters; ours have about 500. A longer one is refused before anything of it is read."""

_ALGORITHM: Final = "EdDSA"
_IAT_LEEWAY: Final = 5
"""Seconds by which the issuing machine's clock may be ahead. `exp` has none: expired is expired."""

_REMEMBERED: Final = 10_000
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")


class InvalidToken(Exception):  # noqa: N818
    """A token that is not accepted. `reason` is for logs and metrics, never for the caller's answer.

    One of: malformed, algorithm, unknown_key, signature, claims, audience, issuer, expired.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Claims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What a verified token says (RFC 7519, section 4.1). `tid` is the tenant, `sid` the session; times in seconds.

    `opr` is there where `sub` is no user of the tenant but an operator of the platform, and says what for.
    """

    iss: str
    aud: str
    sub: UUID
    jti: UUID
    iat: int
    exp: int
    tid: UUID | None = None
    sid: UUID | None = None
    opr: Literal["read", "write"] | None = None


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    # A header with `crit`, `jku`, `jwk`, `x5u` or `b64` is refused for naming it: none of them is ever ours.
    alg: str
    kid: str | None = None
    typ: str | None = None


class _Remembered(msgspec.Struct, frozen=True, gc=False):
    claims: Claims
    kid: str


class Tokens:
    """Issues and verifies access tokens.

    Args:
        keyring: the keys.
        issuer: the `iss` claim, of ours and of what is accepted.
        clock: seconds since 1970.
        remember: how many verified tokens are remembered for each audience.

    A verified token is remembered by its SHA-256 digest until it expires, so that the next request with it costs a
    digest and a look-up (about 2 µs) instead of a signature (about 100 µs). The token itself is not kept. Belongs to
    one event loop.
    """

    def __init__(
        self,
        keyring: Keyring,
        issuer: str,
        clock: Callable[[], float] = time.time,
        *,
        remember: int = _REMEMBERED,
    ) -> None:
        self._keyring = keyring
        self._issuer = issuer
        self._clock = clock
        self._capacity = remember
        self._remembered: dict[str, OrderedDict[bytes, _Remembered]] = {
            AUDIENCE_TENANT: OrderedDict(),
            AUDIENCE_PLATFORM: OrderedDict(),
            AUDIENCE_OPERATOR_ACCESS: OrderedDict(),
        }
        self._jws = jwt.PyJWS(algorithms=[_ALGORITHM])
        self._encoder = msgspec.json.Encoder()
        self._headers = msgspec.json.Decoder(_Header)
        self._payloads = msgspec.json.Decoder(Claims)

    def issue(
        self,
        *,
        audience: str,
        sub: UUID,
        ttl: int,
        tid: UUID | None = None,
        sid: UUID | None = None,
        opr: Literal["read", "write"] | None = None,
    ) -> tuple[str, Claims]:
        """Sign a token that is valid for `ttl` seconds from now; return it and what it says.

        Raises:
            ValueError: the audience is unknown; a tenant's token without `tid` or `sid`, one of the control plane
                with `tid`, `opr` in any but an operator's for a tenant; or `ttl` is not positive, or beyond what the
                keyring retains (a rotation would cut it short).
        """
        if not 0 < ttl <= self._keyring.retain:
            raise ValueError(f"a token lives from 1 to {self._keyring.retain} seconds, not {ttl}")
        now = int(self._clock())
        claims = Claims(
            iss=self._issuer, aud=audience, sub=sub, jti=uuid4(), iat=now, exp=now + ttl, tid=tid, sid=sid, opr=opr
        )
        if audience not in self._remembered or not _plane_fits(claims):
            raise ValueError(f"these claims do not make a token for {audience!r}")
        key = self._keyring.signing_key()
        token = self._jws.encode(
            self._encoder.encode(claims), key.private, algorithm=_ALGORITHM, headers={"kid": key.kid}
        )
        return token, claims

    def verify(self, token: str, audience: str) -> Claims:
        """Return what the token says, if it is one of ours, for this audience, and valid now.

        Raises:
            InvalidToken: it is not; `reason` says why.
            KeyError: there is no such audience (a mistake of the caller's code).
        """
        remembered = self._remembered[audience]
        if len(token) > MAX_TOKEN_LENGTH or not token.isascii():
            raise InvalidToken("malformed")
        digest = sha256(token.encode("ascii")).digest()
        known = remembered.get(digest)
        if known is not None:
            if known.claims.exp > self._clock() and self._keyring.verification_key(known.kid) is not None:
                remembered.move_to_end(digest)
                return known.claims
            # Once more from the start, for the right reason.
            del remembered[digest]
        claims, kid = self._verify(token, audience)
        remembered[digest] = _Remembered(claims, kid)
        if len(remembered) > self._capacity:
            remembered.popitem(last=False)
        return claims

    def _verify(self, token: str, audience: str) -> tuple[Claims, str]:
        match = _COMPACT.fullmatch(token)
        if match is None or not all(map(_is_canonical, match.groups())):
            raise InvalidToken("malformed")
        try:
            header = self._headers.decode(_decode(match[1]))
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise InvalidToken("malformed") from None
        if header.alg != _ALGORITHM:
            raise InvalidToken("algorithm")
        if header.typ != "JWT":
            raise InvalidToken("malformed")
        key = self._keyring.verification_key(header.kid) if header.kid is not None else None
        if header.kid is None or key is None:
            raise InvalidToken("unknown_key")
        try:
            payload = self._jws.decode(token, key, algorithms=[_ALGORITHM])
        except jwt.InvalidSignatureError:
            raise InvalidToken("signature") from None
        except jwt.PyJWTError:
            raise InvalidToken("malformed") from None
        try:
            claims = self._payloads.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise InvalidToken("claims") from None
        now = self._clock()
        if claims.aud != audience:
            raise InvalidToken("audience")
        if claims.iss != self._issuer:
            raise InvalidToken("issuer")
        if claims.iat > now + _IAT_LEEWAY or claims.exp <= claims.iat or not _plane_fits(claims):
            raise InvalidToken("claims")
        if claims.exp <= now:
            raise InvalidToken("expired")
        return claims, header.kid


def _plane_fits(claims: Claims) -> bool:
    """A tenant's token names tenant and session; an operator's never a tenant, whoever forgot to look at `aud`, unless
    it is one for that tenant, which says so."""
    if claims.aud == AUDIENCE_PLATFORM:
        return claims.tid is None and claims.opr is None
    is_operators = claims.aud == AUDIENCE_OPERATOR_ACCESS
    return claims.tid is not None and claims.sid is not None and (claims.opr is not None) == is_operators


def _decode(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def _is_canonical(segment: str) -> bool:
    """Whether base64url of the octets is this very text.

    The last character of a segment may carry two or four bits that mean nothing (RFC 4648, section 3.5): ignoring
    them would give one token several spellings, and whatever is kept by its digest several entries.
    """
    return len(segment) % 4 != 1 and base64.urlsafe_b64encode(_decode(segment)).rstrip(b"=") == segment.encode("ascii")
