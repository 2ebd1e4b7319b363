"""Redis keys, which only this module makes.

A tenant's keys are `{t:<tenant id>}:<area>:…`; the braces are a Redis Cluster hash tag, so that all keys of one
tenant share a slot and a script may touch several of them. Everything there can be lost without losing data.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

__all__ = ("platform_key", "tenant_key", "tenant_pattern")

_AREA = re.compile(r"[a-z][a-z0-9-]*")


def _join(prefix: str, area: str, parts: tuple[str | UUID, ...]) -> str:
    if not _AREA.fullmatch(area):
        raise ValueError(f"not an area: {area!r}")
    # A part may hold anything, an e-mail address for one: it comes last in its own field and is never parsed back.
    return ":".join((prefix, area, *(str(part) for part in parts)))


def tenant_key(tenant_id: UUID, area: str, *parts: str | UUID) -> str:
    """A key in one tenant's namespace."""
    return _join(f"{{t:{tenant_id}}}", area, parts)


def tenant_pattern(tenant_id: UUID) -> str:
    """A pattern that matches all keys of one tenant and no other's; a UUID has no character that is special in it."""
    return f"{{t:{tenant_id}}}:*"


def platform_key(area: str, *parts: str | UUID) -> str:
    """A key of the control plane."""
    return _join("{platform}", area, parts)
