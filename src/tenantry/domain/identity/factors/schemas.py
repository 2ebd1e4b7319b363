"""Second factors on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import Meta, field, to_builtins

from tenantry.domain.identity.factors.models import MOST_GRACE_DAYS
from tenantry.domain.identity.sessions.schemas import DeviceToken, SigningIn
from tenantry.events.definition import Payload
from tenantry.kernel.schema import END, UNSET, BaseStruct, Password, ShortText, Slug, UnsetType, Update

__all__ = (
    "AuthenticatorAppCopy",
    "FactorKind",
    "FactorOf",
    "FactorProof",
    "PasskeyAssertion",
    "PasskeyCopy",
    "PasskeyCreate",
    "PasskeyCreated",
    "PasskeyLoginOptions",
    "PasskeyLoginPayload",
    "PasskeyOptions",
    "PasskeyRead",
    "PasskeyRegistration",
    "PasskeyUpdate",
    "RecoveryCodeUsed",
    "RecoveryCodes",
    "SecondFactorPayload",
    "SecondFactorRead",
    "SecurityChanged",
    "SecurityRead",
    "SecurityUpdate",
    "StepUpPayload",
    "StepUpRead",
    "TotpConfirm",
    "TotpEnrolment",
    "TotpRead",
)

Code = Annotated[str, Meta(min_length=6, max_length=6, pattern=rf"^[0-9]{{6}}{END}")]
"""Of an authenticator app, without spaces."""
RecoveryText = Annotated[str, Meta(min_length=24, max_length=60, pattern=rf"^[A-Za-z2-7 -]+{END}")]
"""As it was shown; capitals, spaces and hyphens do not count."""
Challenge = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_-]+$")]
"""By which something that was begun is named; good once, and for a few minutes."""
Base64Url = Annotated[str, Meta(min_length=1, max_length=20_000, pattern=rf"^[A-Za-z0-9_-]+{END}")]
"""Octets in base64url without padding."""
CredentialId = Annotated[str, Meta(min_length=1, max_length=1364, pattern=rf"^[A-Za-z0-9_-]+{END}")]
"""At most 1,023 octets (WebAuthn, section 4)."""
Transport = Annotated[str, Meta(min_length=1, max_length=32, pattern=rf"^[a-z-]+{END}")]
FactorKind = Literal["totp", "passkey"]
GraceDays = Annotated[int, Meta(ge=0, le=MOST_GRACE_DAYS)]


class _FromBrowser(BaseStruct, forbid_unknown_fields=False):
    """What a browser writes (`PublicKeyCredential.toJSON()`): of it there is more with every version."""

    def as_credential(self) -> dict[str, Any]:
        """As the library takes it."""
        found: dict[str, Any] = to_builtins(self)
        return found


class RegistrationResponse(BaseStruct, forbid_unknown_fields=False):
    client_data: Base64Url = field(name="clientDataJSON")
    attestation_object: Base64Url
    transports: Annotated[list[Transport], Meta(max_length=10)] = field(default_factory=list)


class PasskeyRegistration(_FromBrowser):
    """What `navigator.credentials.create()` gave (WebAuthn Level 3, `RegistrationResponseJSON`)."""

    id: CredentialId
    raw_id: CredentialId
    response: RegistrationResponse
    type: Literal["public-key"] = "public-key"


class AssertionResponse(BaseStruct, forbid_unknown_fields=False):
    client_data: Base64Url = field(name="clientDataJSON")
    authenticator_data: Base64Url
    signature: Base64Url
    user_handle: Base64Url | None = None


class PasskeyAssertion(_FromBrowser):
    """What `navigator.credentials.get()` gave (WebAuthn Level 3, `AuthenticationResponseJSON`)."""

    id: CredentialId
    raw_id: CredentialId
    response: AssertionResponse
    type: Literal["public-key"] = "public-key"


class FactorProof(BaseStruct):
    """Exactly one of its three."""

    code: Code | None = None
    recovery_code: RecoveryText | None = None
    passkey: PasskeyAssertion | None = None


class SecondFactorPayload(FactorProof):
    challenge: Challenge
    """From the problem `second-factor-required`."""
    # As `SigningIn` has them: structs have one base.
    cookie: bool = False
    """For browsers: the refresh token comes as a cookie that no script can read, and not in the answer."""
    remember_device: bool = False
    """For other programs: `deviceToken` in the answer, by which this device is known again. Browsers have a cookie."""
    device_token: DeviceToken | None = None
    """Of an earlier log-in."""


class PasskeyLoginOptions(BaseStruct):
    tenant: Slug | None = None
    """The organization's slug; may be left out where the host names it."""


class PasskeyLoginPayload(SigningIn):
    challenge: Challenge
    passkey: PasskeyAssertion
    tenant: Slug | None = None
    """The organization's slug; may be left out where the host names it."""


class PasskeyOptions(BaseStruct):
    """What to hand to the browser, and what to send back with its answer."""

    challenge: str
    public_key: dict[str, Any]
    """For `PublicKeyCredential.parseCreationOptionsFromJSON` or `parseRequestOptionsFromJSON`."""
    expires_in: int
    """Seconds."""


class StepUpPayload(FactorProof):
    """Exactly one of password, code, recovery code and passkey; with a passkey the challenge of its options."""

    password: Password | None = None
    challenge: Challenge | None = None


class StepUpRead(BaseStruct):
    authenticated_at: datetime
    expires_in: int
    """Seconds for which sensitive acts are open."""


class TotpRead(BaseStruct):
    confirmed_at: datetime
    last_used_at: datetime | None


class PasskeyRead(BaseStruct):
    id: UUID
    name: str
    is_backed_up: bool
    """Whether it is in a keychain that several devices share."""
    created_at: datetime
    last_used_at: datetime | None


class SecondFactorRead(BaseStruct):
    """What the caller can prove themselves with, besides a password."""

    totp: TotpRead | None
    passkeys: int
    recovery_codes: int
    """Those that are left."""
    is_required: bool
    """Whether the organization asks everybody for a second factor."""
    enrol_by: datetime | None
    """From then on, nothing but setting one up is possible. None where none is asked for, or there is one."""


class TotpEnrolment(BaseStruct):
    """A new secret, to be shown once: as a QR code, or to be typed in."""

    secret: str
    """In Base32."""
    uri: str
    """`otpauth://totp/…`."""
    qr_svg: str
    """A `data:` URL of the QR code as SVG."""
    qr_png: str
    """Likewise, as PNG."""


class TotpConfirm(BaseStruct):
    code: Code


class RecoveryCodes(BaseStruct):
    """To be shown once. Empty where the caller has codes from before, which stay good."""

    recovery_codes: list[str]


class PasskeyCreate(BaseStruct):
    challenge: Challenge
    """From the options."""
    name: ShortText
    passkey: PasskeyRegistration


class PasskeyCreated(PasskeyRead):
    recovery_codes: list[str]
    """To be shown once. Empty where the caller has codes from before, which stay good."""


class PasskeyUpdate(Update):
    name: ShortText | UnsetType = UNSET


class SecurityRead(BaseStruct):
    """What the organization asks of everybody."""

    second_factor_required: bool
    required_since: datetime | None
    grace_days: int
    """Which everybody has to set one up: from then on, or since they joined if that is later."""
    without_second_factor: int
    """Active users who have none."""


class SecurityUpdate(Update):
    second_factor_required: bool | UnsetType = UNSET
    grace_days: GraceDays | UnsetType = UNSET


class FactorOf(Payload):
    """Of the event: what was added or removed."""

    kind: FactorKind


class RecoveryCodeUsed(Payload):
    """Of the event: how many are left."""

    left: int


class SecurityChanged(Payload):
    """Of the event: what is asked for now."""

    second_factor_required: bool
    grace_days: int


class AuthenticatorAppCopy(BaseStruct):
    """In the copy of a person's data: that an authenticator app was set up."""

    id: UUID
    confirmed_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime


class PasskeyCopy(BaseStruct):
    """Likewise: a passkey."""

    id: UUID
    name: str
    last_used_at: datetime | None
    created_at: datetime
