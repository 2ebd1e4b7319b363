"""Opaque credentials: secrets that we hand out once and know again by their digest.

The text is `<kind>_<tenant id>_<secret>`, the id as 32 and the secret as 64 lowercase hexadecimal digits. It names its
tenant, since there is no default one to look it up in. Hexadecimal has one spelling per value and no `_`, so that two
texts never mean one credential; 256 random bits need no slow hash, SHA-256 is enough to store.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import NamedTuple
from uuid import UUID

__all__ = (
    "API_KEY",
    "DEVICE",
    "EMAIL_CHANGE",
    "EMAIL_VERIFICATION",
    "INVITATION",
    "PASSWORD_RESET",
    "REFRESH",
    "SECOND_FACTOR",
    "SIGNUP",
    "SIGN_UP",
    "SSO_CODE",
    "SSO_STATE",
    "TEAM_INVITATION",
    "Credential",
    "InvalidCredential",
    "ParsedCredential",
    "digest_matches",
    "named_tenant_id",
)

REFRESH = "rt"
SIGN_UP = "sup"
SIGNUP = "sgn"
"""Of somebody who has no organization yet: in place of a tenant's id it has the sign-up's."""
INVITATION = "inv"
TEAM_INVITATION = "tinv"
PASSWORD_RESET = "pwr"  # noqa: S105 - a kind of credential, and none itself
EMAIL_VERIFICATION = "emv"
EMAIL_CHANGE = "emc"
API_KEY = "key"
DEVICE = "dev"
SSO_STATE = "sst"
SSO_CODE = "ssc"
SECOND_FACTOR = "mfa"

_KIND = re.compile(r"[a-z]{2,8}")
_TEXT = re.compile(r"([a-z]{2,8})_([0-9a-f]{32})_[0-9a-f]{64}")


class InvalidCredential(Exception):  # noqa: N818
    """The text is no credential of the kind that was asked for. It says nothing more: callers answer all alike."""


class ParsedCredential(NamedTuple):
    """What a well-formed credential tells. Whether it was ever issued only the stored digest can say."""

    tenant_id: UUID
    digest: bytes


class Credential:
    """Makes and reads credentials; not to be instantiated."""

    @staticmethod
    def new(kind: str, tenant_id: UUID) -> tuple[str, bytes]:
        """Return the text, to be shown once and never stored, and its SHA-256 digest (32 bytes), to be stored.

        The digest covers the whole text: a secret is worth nothing under another kind or another tenant.

        Raises:
            ValueError: `kind` is not two to eight lowercase letters.
        """
        if _KIND.fullmatch(kind) is None:
            raise ValueError(f"a kind is two to eight lowercase letters, not {kind!r}")
        text = f"{kind}_{tenant_id.hex}_{secrets.token_hex(32)}"
        return text, hashlib.sha256(text.encode("ascii")).digest()

    @staticmethod
    def parse(text: str, kind: str) -> ParsedCredential:
        """Read a credential of this kind.

        Raises:
            InvalidCredential: the text has another form or another kind.
        """
        match = _TEXT.fullmatch(text)
        if match is None or match[1] != kind:
            raise InvalidCredential("not a valid credential")
        return ParsedCredential(UUID(hex=match[2]), hashlib.sha256(text.encode("ascii")).digest())


def named_tenant_id(text: str) -> UUID | None:
    """The organization that a credential of whatever kind names, good or not; None for what is none."""
    match = _TEXT.fullmatch(text)
    return None if match is None else UUID(hex=match[2])


def digest_matches(a: bytes, b: bytes) -> bool:
    """Whether two digests are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(a, b)
