"""Settings of second factors and passkeys."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from tenantry.kernel.settings.addresses import is_hostname, is_ip, is_origin
from tenantry.kernel.settings.fields import expected, text, whole

__all__ = ("SecondFactors",)

_TENANT = "{tenant}"


class SecondFactors(BaseModel):
    """Codes, passkeys, and how long a proof of who somebody is counts."""

    step_up_after: int = whole(
        900,
        least=1,
        most=86_400,
        description="How long after a log-in or a step-up sensitive acts are open, such as making an API key.",
        unit="seconds",
    )
    second_factor_ttl: int = whole(
        300,
        least=30,
        most=3600,
        description="How long the challenge of a second factor or a passkey is good.",
        unit="seconds",
    )
    second_factor_failures: int = whole(
        5, least=1, most=100, description="Wrong second factors on one log-in, after which it has to begin anew."
    )
    second_factor_daily_failures: int = whole(
        30,
        least=1,
        most=1000,
        description="Wrong codes of one account in 24 hours, after which codes are refused; passkeys are not.",
    )
    passkey_domain: str | None = text(
        None,
        expects="a host name such as app.example.com",
        description="Domain to which passkeys are bound (the WebAuthn relying party's id), for good: another one makes "
        "all of them useless. Unset: TENANTRY_BASE_DOMAIN, or the host of TENANTRY_APP_URL without {tenant}, or "
        "localhost.",
    )
    passkey_origins: Annotated[tuple[str, ...], NoDecode] = text(
        (),
        expects="origins below TENANTRY_PASSKEY_DOMAIN such as https://{tenant}.app.example.com, separated by commas",
        description="Origins of the pages that use passkeys, {tenant} standing for the organization's slug. Unset: "
        "that of TENANTRY_APP_URL, or https://{tenant}. before TENANTRY_BASE_DOMAIN.",
    )

    @field_validator("passkey_domain")
    @classmethod
    def _check_domain(cls, domain: str | None) -> str | None:
        if domain is None:
            return None
        domain = domain.lower().removesuffix(".")
        if is_ip(domain) or not is_hostname(domain):
            raise ValueError(expected(cls.model_fields["passkey_domain"]))
        return domain

    @field_validator("passkey_origins", mode="before")
    @classmethod
    def _split_passkey_origins(cls, value: Any) -> Any:
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @field_validator("passkey_origins")
    @classmethod
    def _check_passkey_origins(cls, origins: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        domain = info.data.get("passkey_domain")
        for origin in origins:
            named = origin.replace(_TENANT, "tenant")
            host = named.rpartition("//")[2].partition(":")[0]
            # A browser refuses a relying party that the page's host is not below (WebAuthn, section 5.1.3).
            below = domain is None or host == domain or host.endswith(f".{domain}")
            if not is_origin(named) or not below:
                raise ValueError(expected(cls.model_fields["passkey_origins"]))
        return origins
