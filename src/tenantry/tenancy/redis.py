"""Redis keys, which only this module makes.

A tenant's keys are `{t:<tenant id>}:<area>:…`; the braces are a Redis Cluster hash tag, so that all keys of one
tenant share a slot and a script may touch several of them. The keys of its queue are SAQ's, which have forms of their
own around the queue's name. Everything there can be lost without losing data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from uuid import UUID

__all__ = (
    "Holding",
    "holding_of",
    "platform_key",
    "queue_name",
    "tenant_holdings",
    "tenant_key",
    "tenant_pattern",
    "tenant_search_pattern",
)

_AREA = re.compile(r"[a-z][a-z0-9-]*")

Holding = Literal["redis", "queues"]
"""What a tenant has in Redis: keys in its own namespace, and those of its job queue."""


def _join(prefix: str, area: str, parts: tuple[str | UUID, ...]) -> str:
    if not _AREA.fullmatch(area):
        raise ValueError(f"not an area: {area!r}")
    # A part may hold anything, an e-mail address for one: it comes last in its own field and is never parsed back.
    return ":".join((prefix, area, *(str(part) for part in parts)))


def tenant_key(tenant_id: UUID, area: str, *parts: str | UUID) -> str:
    """A key in one tenant's namespace."""
    return _join(f"{{t:{tenant_id}}}", area, parts)


def tenant_pattern(tenant_id: UUID) -> str:
    """A pattern that matches all keys of one tenant and no other's; a UUID has no character that is special in it.

    Those of its queue are not among them: see `tenant_holdings`.
    """
    return f"{{t:{tenant_id}}}:*"


def queue_name(tenant_id: UUID) -> str:
    """The name of a tenant's SAQ queue."""
    return f"t:{tenant_id}"


def tenant_holdings(tenant_id: UUID) -> Mapping[Holding, tuple[str, ...]]:
    """With what each key of a tenant begins, by what it belongs to: all that a purge removes.

    SAQ writes `saq:<queue>:…` for the queue, `saq:job:<queue>:…` for a job and `saq:abort:<key of a job>` where one is
    to be given up; our jobs' keys begin with their queue's name.
    """
    queue = queue_name(tenant_id)
    return {
        "redis": (tenant_pattern(tenant_id).removesuffix("*"),),
        "queues": (f"saq:{queue}:", f"saq:job:{queue}:", f"saq:abort:{queue}:"),
    }


def tenant_search_pattern(tenant_id: UUID) -> str:
    """A pattern for one SCAN that finds whatever `holding_of` may count to a tenant.

    It finds more: another tenant's key may hold this id, in the name of a job say. One SCAN for each beginning would
    walk over everybody's keys as many times.
    """
    return f"*{tenant_id}*"


def holding_of(tenant_id: UUID, key: bytes) -> Holding | None:
    """What of a tenant's a key belongs to; None if it is not the tenant's."""
    for holding, beginnings in tenant_holdings(tenant_id).items():
        if key.startswith(tuple(beginning.encode() for beginning in beginnings)):
            return holding
    return None


def platform_key(area: str, *parts: str | UUID) -> str:
    """A key of the control plane."""
    return _join("{platform}", area, parts)
