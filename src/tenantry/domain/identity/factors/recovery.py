"""Recovery codes: for whoever has lost everything else, ten of them, each good once."""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

__all__ = ("CODES", "new_codes", "recovery_digest")

CODES = 10
_OCTETS = 15
"""120 bits: from 112 on, a plain hash is enough to store (NIST SP 800-63B-4, section 3.1.2.2)."""
_GROUP = 4


def new_codes() -> list[str]:
    """Ten codes to be shown once, of six groups of four letters and digits: `k3fq-…`."""
    return [_grouped(base64.b32encode(secrets.token_bytes(_OCTETS)).decode().lower()) for _ in range(CODES)]


def recovery_digest(user_id: UUID, code: str) -> bytes:
    """The SHA-256 by which a user's code is known, however it was typed: capitals, spaces and hyphens do not count."""
    plain = "".join(letter for letter in code.lower() if letter.isalnum())
    return hashlib.sha256(user_id.bytes + plain.encode()).digest()


def _grouped(code: str) -> str:
    return "-".join(code[start : start + _GROUP] for start in range(0, len(code), _GROUP))
