"""Passwords that many people have: the blocklist that NIST SP 800-63B-4 §3.1.1.2 asks for."""

from __future__ import annotations

import gzip
import unicodedata
from functools import cache
from importlib.resources import files

__all__ = ("COMMON_MIN_LENGTH", "folded", "is_common")

COMMON_MIN_LENGTH = 8
"""Characters. Shorter ones are not in the list: no deployment takes them."""


def folded(text: str) -> str:
    """The form in which passwords and words are compared, not stored: NFKC, without case.

    `Password` in full-width letters is the same guess as `password`. What is hashed is the password as it was typed.
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def is_common(password: str) -> bool:
    """Whether a password, `folded`, is among those that many people have."""
    return len(password) >= COMMON_MIN_LENGTH and password in _passwords()


@cache
def _passwords() -> frozenset[str]:
    # Two megabytes and ten milliseconds: for the first new password, and not for every process that imports this.
    packed = files("tenantry.kernel.security").joinpath("data", "common_passwords.txt.gz").read_bytes()
    return frozenset(gzip.decompress(packed).decode("utf-8").splitlines())
