"""Headers that every answer carries."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ("PAGE_POLICY", "secure_headers")

_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
# An answer that says nothing of caching is for its caller alone: answers hold a tenant's data, and those to a login
# hold tokens (RFC 6749 §5.1). Public documents say their own Cache-Control.
_CACHE = (b"cache-control", b"no-store")
_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of our own HTML pages: scripts from files alone. Swagger UI sets styles inline."""

_NEITHER = _ALWAYS
_NO_CACHE = (*_ALWAYS, _CACHE)
_NO_POLICY = (*_ALWAYS, _POLICY)
_BOTH = (*_ALWAYS, _CACHE, _POLICY)


def secure_headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """The security headers to add to those of an answer, whose own Cache-Control and policy win."""
    cached = policed = False
    for name, _ in headers:
        if name == b"cache-control":
            cached = True
        elif name == b"content-security-policy":
            policed = True
    if cached:
        return _NEITHER if policed else _NO_POLICY
    return _NO_CACHE if policed else _BOTH
