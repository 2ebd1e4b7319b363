"""Settings of what callers prove themselves with: tokens, invitations, passwords."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel, ValidationInfo, field_validator

from tenantry.kernel.settings.fields import expected, text, whole

__all__ = ("Passwords", "Tokens")

_KEYRING_LEEWAY = 60
"""Seconds that a retired key outlives the last token that it signed: room for the clocks of other verifiers."""


class Tokens(BaseModel):
    """Tokens and invitations, the keys that sign them, and those that seal secrets."""

    token_issuer: str = text(
        "tenantry",
        expects="a name or a URI without spaces, at most 255 characters",
        description="The `iss` claim of issued tokens (RFC 7519, section 4.1.1); others are refused.",
    )
    access_token_ttl: int = whole(
        900, least=1, most=86_400, description="Lifetime of a tenant user's access token.", unit="seconds"
    )
    operator_token_ttl: int = whole(
        3600, least=1, most=86_400, description="Lifetime of an operator's access token.", unit="seconds"
    )
    operator_access_ttl: int = whole(
        1800,
        least=60,
        most=28_800,
        description="How long an operator is let into an organization at most, with its consent.",
        unit="seconds",
    )
    break_glass_ttl: int = whole(
        900,
        least=60,
        most=3600,
        description="How long an operator is let in at most without consent, the owners being told at once.",
        unit="seconds",
    )
    refresh_token_ttl: int = whole(
        2_592_000,
        least=1,
        most=31_536_000,
        description="Lifetime of a refresh token; more than an access token's.",
        unit="seconds",
    )
    invitation_ttl: int = whole(
        604_800, least=1, most=7_776_000, description="How long an invitation can be accepted.", unit="seconds"
    )
    keyring: Path | None = text(
        None,
        expects="a file",
        description="File with the keys that sign tokens; unset: keyring.json in the home folder.",
    )
    vault_file: Path | None = text(
        None,
        expects="a file",
        description="File with the keys that seal stored secrets, which must be there; unset: vault.json beside the "
        "keyring, made when first needed.",
    )

    @property
    def keyring_retain(self) -> int:
        """Seconds for which a retired key still verifies: the longest token's lifetime, and a leeway."""
        longest = max(self.access_token_ttl, self.operator_token_ttl, self.operator_access_ttl, self.break_glass_ttl)
        return longest + _KEYRING_LEEWAY

    @field_validator("token_issuer")
    @classmethod
    def _check_issuer(cls, issuer: str) -> str:
        if not 1 <= len(issuer) <= 255 or re.fullmatch(r"[!-~]+", issuer) is None:
            raise ValueError(expected(cls.model_fields["token_issuer"]))
        return issuer

    @field_validator("refresh_token_ttl")
    @classmethod
    def _check_refresh_ttl(cls, ttl: int, info: ValidationInfo) -> int:
        access = info.data.get("access_token_ttl")
        if access is not None and ttl <= access:
            raise ValueError(f"more than TENANTRY_ACCESS_TOKEN_TTL ({access})")
        return ttl

    @field_validator("keyring", "vault_file")
    @classmethod
    def _expand_file(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser()


class Passwords(BaseModel):
    """Passwords: which are taken, how they are hashed, how often they may be guessed."""

    password_min_length: int = whole(
        8,
        least=8,
        most=64,
        description="Shortest password; NIST SP 800-63B-4 asks for 15 where it is the only factor.",
        unit="characters",
    )
    password_max_length: int = whole(
        1024,
        least=64,
        most=1024,
        description="Longest password; NIST SP 800-63B-4 asks for 64 or more.",
        unit="characters",
    )
    password_hash_time_cost: int = whole(
        2, least=1, most=64, description="argon2id passes; OWASP: 2 with 19456 KiB, 1 with 47104 KiB.", unit="passes"
    )
    password_hash_memory_cost: int = whole(
        19_456, least=7168, most=1_048_576, description="argon2id memory of one hash.", unit="KiB"
    )
    password_hash_parallelism: int = whole(1, least=1, most=16, description="argon2id lanes.", unit="lanes")
    password_hash_concurrency: int = whole(
        2,
        least=1,
        most=64,
        description="Passwords hashed at once by each process; each takes the memory above.",
        unit="threads",
    )
    login_failures: int = whole(
        10,
        least=1,
        most=1000,
        description="Failed log-ins of one account from one network, after which they are refused for a while; before "
        "that they are slowed down. Five times as many from all networks together.",
    )
    login_address_failures: int = whole(
        100,
        least=1,
        most=100_000,
        description="Failed log-ins of one client address, to whatever accounts, after which it is refused for a "
        "while; counted where the address is public, or a trusted proxy has vouched for it.",
    )
    login_window: int = whole(
        300, least=1, most=86_400, description="For how long they are then refused.", unit="seconds"
    )
