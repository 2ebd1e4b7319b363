"""Signing in, on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Protocol
from uuid import UUID

from msgspec import Meta

from tenantry.events.definition import Payload
from tenantry.kernel.schema import UNSET, BaseStruct, Email, Password, Slug, UnsetType

__all__ = (
    "DeviceCopy",
    "DeviceToken",
    "LoginPayload",
    "RefreshPayload",
    "SessionCopy",
    "SessionOf",
    "SessionRead",
    "SessionsEnded",
    "SigningIn",
    "TokenResponse",
    "Whereabouts",
)

Credential = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_-]+$")]
DeviceToken = Credential


class Whereabouts(Protocol):
    """The fields of `SigningIn`, also of structs that have another base."""

    cookie: bool
    remember_device: bool
    device_token: str | None


class SigningIn(BaseStruct):
    """What whoever signs in says of where they are."""

    cookie: bool = False
    """For browsers: the refresh token comes as a cookie that no script can read, and not in the answer."""
    remember_device: bool = False
    """For other programs: `deviceToken` in the answer, by which this device is known again. Browsers have a cookie."""
    device_token: Credential | None = None
    """Of an earlier log-in."""


class LoginPayload(SigningIn):
    email: Email
    password: Password
    tenant: Slug | None = None
    """The organization's slug; may be left out where the host names it."""


class RefreshPayload(BaseStruct):
    """A refresh token, or none: then the cookie's is traded."""

    refresh_token: Credential | None = None
    tenant: Slug | None = None
    """The organization whose cookie it is; may be left out where the host names it, or a token is sent."""
    cookie: bool = False
    """Have the new refresh token come as a cookie; so it does where the old one came as one."""


class TokenResponse(BaseStruct):
    """As RFC 6749 §5.1 has it, in camelCase."""

    access_token: str
    refresh_token: str | UnsetType = UNSET
    """Left out where it comes as a cookie."""
    expires_in: int
    """Seconds."""
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - a kind of token, not one
    enrol_by: datetime | None = None
    """The organization asks for a second factor, and there is none: from then on the tokens only set one up."""
    device_token: str | UnsetType = UNSET
    """Where it was asked for: to be sent with the next log-in on this device."""


class SessionRead(BaseStruct):
    """A signed-in device."""

    id: UUID
    device: str | None
    """Program and system, such as `Firefox on Windows`."""
    address: str | None
    """From which it was opened, or its refresh token last traded."""
    is_current: bool
    """Whether it is the one that asks."""
    created_at: datetime
    last_used_at: datetime
    """Up to a minute old."""
    expires_at: datetime
    """Unless it is renewed before."""


class SessionCopy(BaseStruct):
    """In the copy of a person's data: a device that was signed in."""

    id: UUID
    user_agent: str | None
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


class SessionOf(Payload):
    """Of the event: whose session it is."""

    user_id: UUID


class SessionsEnded(Payload):
    """Of the event: how many there were."""

    sessions: int


class DeviceCopy(BaseStruct):
    """In the copy of a person's data: a device on which they have logged in."""

    id: UUID
    browser: str
    system: str
    network: str | None
    last_seen_at: datetime
    created_at: datetime
