"""The dashboard on the wire."""

from __future__ import annotations

from typing import Any

from tenantry.kernel.schema import BaseStruct

__all__ = ("DashboardRead", "UnavailablePart")


class UnavailablePart(BaseStruct):
    """Why a part is null."""

    part: str
    detail: str


class DashboardRead(BaseStruct):
    """What the caller may see of each feature; each part was read at its own moment."""

    parts: dict[str, Any]
    """By name. What the caller may not see is not there; null is what could not be read just now."""
    unavailable: list[UnavailablePart]
    """What could not be read, and why; empty as a rule."""
