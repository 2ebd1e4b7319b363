"""The organization's use on the wire."""

from __future__ import annotations

from datetime import date

import msgspec

from tenantry.kernel.schema import BaseStruct

__all__ = ("OwnUsage", "OwnUsageDay", "OwnUsageTotal")


class OwnUsageTotal(BaseStruct):
    """What was used in some days."""

    requests: int
    jobs: int
    """That were done; the nightly upkeep and whatever else comes by a schedule is not among them."""
    storage_bytes: int | None
    """The most that the organization's data took up; null: nobody has looked yet."""
    seats: int | None
    """The most active accounts that there were; likewise."""


class OwnUsageDay(OwnUsageTotal):
    day: date
    """In UTC."""


class OwnUsage(BaseStruct):
    """What the organization has used, day by day and together."""

    since: date = msgspec.field(name="from")
    until: date = msgspec.field(name="to")
    """This day included."""
    days: list[OwnUsageDay]
    """Those of which there is anything, the first one first."""
    total: OwnUsageTotal
    is_live: bool
    """Whether what was used in the last minute is in the numbers; now and then it is not."""
