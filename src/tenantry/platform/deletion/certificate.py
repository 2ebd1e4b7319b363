"""Purge certificates as JSON Web Signatures (RFC 7515): made by a deployment, checked by anybody.

The header carries the public key that signed (`jwk`, §4.1.3) and its thumbprint (`kid`, RFC 7638). Access tokens live
for minutes, and a retired key leaves the JWK Set soon after; a certificate is to be checked in ten years. The embedded
key shows that nothing was changed. That the key was the deployment's is shown by its thumbprint: in the JWK Set, in a
copy of it that was kept with the certificate, or in the deployment's own records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jwt.utils import base64url_decode, base64url_encode

from tenantry.kernel.security.keyring import Keyring, thumbprint

__all__ = ("CERTIFICATE_TYPE", "CertificateError", "VerifiedCertificate", "sign_certificate", "verify_certificate")

CERTIFICATE_TYPE = "tenantry-purge-certificate+jws"
"""The header's `typ` (RFC 7515 §4.1.9): no access token's, so that neither is ever taken for the other."""

_ALGORITHM = "EdDSA"
_MAX_LENGTH = 1 << 20


class CertificateError(Exception):
    """This is no certificate, or it was changed. The text says what is wrong with it."""


class VerifiedCertificate(NamedTuple):
    """What a certificate says, and the thumbprint of the key that signed it. Whose key that is, is another question."""

    certificate: dict[str, Any]
    kid: str


class _Jwk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A public Ed25519 key (RFC 8037 §2)."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: str


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    alg: Literal["EdDSA"]
    typ: str
    kid: str
    jwk: _Jwk


_jws = jwt.PyJWS(algorithms=[_ALGORITHM])


def sign_certificate(certificate: Mapping[str, Any], keyring: Keyring) -> tuple[str, str]:
    """The certificate as a compact JWS, signed with the deployment's present key; and that key's thumbprint."""
    key = keyring.signing_key()
    x = base64url_encode(key.private.public_key().public_bytes_raw()).decode("ascii")
    headers = {"typ": CERTIFICATE_TYPE, "kid": key.kid, "jwk": {"kty": "OKP", "crv": "Ed25519", "x": x}}
    return _jws.encode(msgspec.json.encode(certificate), key.private, algorithm=_ALGORITHM, headers=headers), key.kid


def verify_certificate(jws: str) -> VerifiedCertificate:
    """Check that a certificate is as it was signed, by the key that it names.

    The caller compares `kid` with a thumbprint that it trusts: whoever forges a certificate brings a key along.

    Raises:
        CertificateError: it is not.
    """
    if len(jws) > _MAX_LENGTH or not jws.isascii():
        raise CertificateError("this is no compact JWS")
    try:
        header = msgspec.json.decode(base64url_decode(jws.partition(".")[0]), type=_Header)
    except (ValueError, msgspec.DecodeError):
        raise CertificateError("the header is not that of a purge certificate") from None
    if header.typ != CERTIFICATE_TYPE:
        raise CertificateError(f"the header's type is {header.typ!r}, not {CERTIFICATE_TYPE!r}")
    if header.kid != thumbprint(header.jwk.x):
        raise CertificateError("the key's name is not its thumbprint")
    try:
        key = Ed25519PublicKey.from_public_bytes(base64url_decode(header.jwk.x))
        payload = _jws.decode(jws, key, algorithms=[_ALGORITHM])
        return VerifiedCertificate(msgspec.json.decode(payload, type=dict[str, Any]), header.kid)
    except jwt.InvalidSignatureError:
        raise CertificateError("the signature does not fit: it was changed, or the key is another") from None
    except (ValueError, msgspec.DecodeError, jwt.PyJWTError):
        raise CertificateError("this is no compact JWS of a JSON object") from None
