# mypy: ignore-errors
"""Access tokens: EdDSA by PyJWT, remembered by digest once verified, as Tenantry remembers its own."""

from __future__ import annotations

import base64
import hashlib
import time

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.conf import settings

_key = Ed25519PublicKey.from_public_bytes(base64.b64decode(settings.TOKEN_KEY))
_remembered = {}


class InvalidToken(Exception):  # noqa: N818
    """A token that is not accepted."""


def verify(token):
    """The claims of a token of ours that is valid now.

    Raises:
        InvalidToken: it is not.
    """
    digest = hashlib.sha256(token.encode()).digest()
    claims = _remembered.get(digest)
    if claims is not None and claims["exp"] > time.time():
        return claims
    try:
        claims = jwt.decode(
            token,
            _key,
            algorithms=["EdDSA"],
            audience=settings.TOKEN_AUDIENCE,
            issuer=settings.TOKEN_ISSUER,
            options={"require": ["exp", "iat", "sub", "tid", "sid"]},
        )
    except jwt.PyJWTError as error:
        raise InvalidToken from error
    if len(_remembered) >= 10_000:
        _remembered.clear()
    _remembered[digest] = claims
    return claims
