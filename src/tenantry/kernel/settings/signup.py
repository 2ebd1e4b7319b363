"""Settings of what people without a token may ask for: an organization, and the list of theirs."""

from __future__ import annotations

from pydantic import BaseModel, ValidationInfo, field_validator

from tenantry.kernel.settings.addresses import HTTP_FORM, check_http_url
from tenantry.kernel.settings.fields import expected, text, whole

__all__ = ("SignUp",)


class SignUp(BaseModel):
    """Organizations that strangers make for themselves, and who has forgotten the name of theirs."""

    signup: bool = text(
        False,
        expects="true or false",
        description="Let strangers make organizations, once they have read a mail at their address; needs mail.",
    )
    signup_plan: str = text(
        "free", expects="a plan's slug", description="Plan of organizations that strangers make; it must be there."
    )
    signup_ttl: int = whole(
        86_400, least=300, most=2_592_000, description="How long the link of a sign-up is good.", unit="seconds"
    )
    signup_hold: int = whole(
        1800,
        least=0,
        most=86_400,
        description="How long a slug is kept for a sign-up that is not confirmed yet; no longer than the link is good.",
        unit="seconds",
    )
    signup_mails_per_address: int = whole(
        3, least=1, most=1000, description="Sign-ups mailed to one address in an hour.", unit="mails"
    )
    signup_mails_per_client: int = whole(
        5,
        least=1,
        most=100_000,
        description="Sign-ups asked for from one network (an IPv4 address, an IPv6 /64) in an hour.",
        unit="mails",
    )
    signup_mails: int = whole(
        100, least=1, most=1_000_000, description="Sign-ups of the whole deployment in an hour.", unit="mails"
    )
    organizations_mails_per_address: int = whole(
        3, least=1, most=1000, description="Lists of organizations mailed to one address in an hour.", unit="mails"
    )
    organizations_mails_per_client: int = whole(
        20,
        least=1,
        most=100_000,
        description="Lists of organizations asked for from one network in an hour.",
        unit="mails",
    )
    organizations_mails: int = whole(
        1000, least=1, most=1_000_000, description="Lists of organizations in an hour, of everybody.", unit="mails"
    )
    public_app_url: str | None = text(
        None,
        expects=HTTP_FORM,
        description="Where people who have no organization yet use the service: links of sign-ups lead there. Unset: "
        "TENANTRY_APP_URL, with www for {tenant}, which no organization can be called.",
    )

    @field_validator("signup_hold")
    @classmethod
    def _check_hold(cls, hold: int, info: ValidationInfo) -> int:
        ttl = info.data.get("signup_ttl")
        if ttl is not None and hold > ttl:
            raise ValueError(f"at most TENANTRY_SIGNUP_TTL ({ttl})")
        return hold

    @field_validator("public_app_url")
    @classmethod
    def _check_public_app_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            check_http_url(url)
        except ValueError:
            raise ValueError(expected(cls.model_fields["public_app_url"])) from None
        return url.rstrip("/")
