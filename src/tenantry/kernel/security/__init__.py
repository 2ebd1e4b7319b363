"""What keeps callers apart: password hashes, signing keys, access tokens and opaque credentials."""

from __future__ import annotations

from tenantry.kernel.security.credentials import (
    INVITATION,
    REFRESH,
    Credential,
    InvalidCredential,
    ParsedCredential,
    digest_matches,
)
from tenantry.kernel.security.keyring import KeyInfo, Keyring, KeyringError, SigningKey
from tenantry.kernel.security.passwords import MAX_PASSWORD_LENGTH, HasherBusy, PasswordHasher, PasswordRefused
from tenantry.kernel.security.tokens import AUDIENCE_PLATFORM, AUDIENCE_TENANT, Claims, InvalidToken, Tokens

__all__ = (
    "AUDIENCE_PLATFORM",
    "AUDIENCE_TENANT",
    "INVITATION",
    "MAX_PASSWORD_LENGTH",
    "REFRESH",
    "Claims",
    "Credential",
    "HasherBusy",
    "InvalidCredential",
    "InvalidToken",
    "KeyInfo",
    "Keyring",
    "KeyringError",
    "ParsedCredential",
    "PasswordHasher",
    "PasswordRefused",
    "SigningKey",
    "Tokens",
    "digest_matches",
)
