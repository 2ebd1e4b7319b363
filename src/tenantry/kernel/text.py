"""Plain text helpers."""

from __future__ import annotations

import re
import unicodedata

__all__ = ("slugify",)


def slugify(text: str) -> str:
    """A lower-case ASCII slug of at most 63 characters, empty if nothing of `text` can be kept."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:63].strip("-")
