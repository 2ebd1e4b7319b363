"""What keeps callers apart: password hashes, signing keys, access tokens, opaque credentials and sealed secrets."""

from __future__ import annotations

from tenantry.kernel.security.credentials import (
    API_KEY,
    DEVICE,
    EMAIL_CHANGE,
    EMAIL_VERIFICATION,
    INVITATION,
    PASSWORD_RESET,
    REFRESH,
    SECOND_FACTOR,
    SIGN_UP,
    SIGNUP,
    SSO_CODE,
    SSO_STATE,
    TEAM_INVITATION,
    Credential,
    InvalidCredential,
    ParsedCredential,
    digest_matches,
    named_tenant_id,
)
from tenantry.kernel.security.keyfile import KeyFileError
from tenantry.kernel.security.keyring import KeyInfo, Keyring, KeyringError, SigningKey
from tenantry.kernel.security.passwords import (
    MAX_PASSWORD_LENGTH,
    HasherBusy,
    HasherShareBusy,
    PasswordHasher,
    PasswordRefused,
)
from tenantry.kernel.security.tokens import AUDIENCE_PLATFORM, AUDIENCE_TENANT, Claims, InvalidToken, Tokens
from tenantry.kernel.security.vault import (
    BrokenSealError,
    SealError,
    SealingKeyInfo,
    UnknownSealingKeyError,
    Vault,
    VaultError,
)

__all__ = (
    "API_KEY",
    "AUDIENCE_PLATFORM",
    "AUDIENCE_TENANT",
    "DEVICE",
    "EMAIL_CHANGE",
    "EMAIL_VERIFICATION",
    "INVITATION",
    "MAX_PASSWORD_LENGTH",
    "PASSWORD_RESET",
    "REFRESH",
    "SECOND_FACTOR",
    "SIGNUP",
    "SIGN_UP",
    "SSO_CODE",
    "SSO_STATE",
    "TEAM_INVITATION",
    "BrokenSealError",
    "Claims",
    "Credential",
    "HasherBusy",
    "HasherShareBusy",
    "InvalidCredential",
    "InvalidToken",
    "KeyFileError",
    "KeyInfo",
    "Keyring",
    "KeyringError",
    "ParsedCredential",
    "PasswordHasher",
    "PasswordRefused",
    "SealError",
    "SealingKeyInfo",
    "SigningKey",
    "Tokens",
    "UnknownSealingKeyError",
    "Vault",
    "VaultError",
    "digest_matches",
    "named_tenant_id",
)
