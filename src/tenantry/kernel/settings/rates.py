"""Settings of how much an organization and its people may ask for, where their plan does not say."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from tenantry.kernel.settings.fields import text

__all__ = ("Rates",)


def _rate(description: str, default: float | None = None) -> Any:
    return Field(
        default,
        gt=0,
        le=1_000_000,
        allow_inf_nan=False,
        description=description,
        json_schema_extra={"expects": "a number above 0 and up to 1000000 (requests a second)"},
    )


def _burst(description: str, default: int | None = None) -> Any:
    return Field(
        default,
        ge=1,
        le=1_000_000,
        description=description,
        json_schema_extra={"expects": "a whole number from 1 to 1000000 (requests)"},
    )


class Rates(BaseModel):
    """Requests a second, and how many at once. Unset: no limit, or a burst of one second's requests."""

    request_rate: float | None = _rate(
        "Requests a second of an organization whose plan has no request_rate; unset: no limit."
    )
    request_burst: int | None = _burst("How many of them may come at once; unset: those of one second.")
    user_rate: float | None = _rate("As TENANTRY_REQUEST_RATE, of one user.")
    user_burst: int | None = _burst("As TENANTRY_REQUEST_BURST, of one user.")
    key_rate: float | None = _rate("As TENANTRY_REQUEST_RATE, of one API key.")
    key_burst: int | None = _burst("As TENANTRY_REQUEST_BURST, of one API key.")
    unknown_key_rate: float = _rate(
        "Requests a second from one client address to one organization with API keys of which it is not known yet "
        "whether they are any: looked up, and never at the expense of the organization's own limit.",
        20.0,
    )
    unknown_key_burst: int = _burst("How many of them may come at once.", 100)
    rate_limits: bool = text(
        True,
        expects="true or false",
        description="Hold requests to the limits of plans and of these settings. Without, they are counted only.",
    )
