"""Passkeys, as WebAuthn has them (Level 3): options for browsers, and whether what comes back is good.

All organizations of a deployment are one relying party, its domain, since an organization's host is a name below it. So
a browser may offer the passkey of one organization to another. It does not work there: the public key is in the schema
of the one alone, the origin is checked against the organization's own, and the user handle in the passkey names both
the organization and the user.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

import structlog
import webauthn
from webauthn.helpers import base64url_to_bytes, options_to_json_dict
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    AuthenticatorTransport,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tenantry.domain.identity.factors.models import Passkey
    from tenantry.kernel.settings import Settings
    from tenantry.tenancy.context import TenantContext

__all__ = ("InvalidPasskey", "NewPasskey", "RelyingParty", "new_challenge", "user_handle")

_TENANT = "{tenant}"
_KNOWN_TRANSPORTS = frozenset(each.value for each in AuthenticatorTransport)
_log = structlog.get_logger(__name__)


class InvalidPasskey(Exception):  # noqa: N818
    """What the browser sent does not prove anything. Callers answer all alike."""


@dataclass(frozen=True, slots=True)
class NewPasskey:
    """What a registration has brought."""

    credential_id: bytes
    public_key: bytes
    sign_count: int
    is_backed_up: bool


def new_challenge() -> bytes:
    """What a passkey is to sign: 256 random bits."""
    return secrets.token_bytes(32)


def user_handle(tenant_id: UUID, user_id: UUID) -> bytes:
    """By which a passkey knows whose it is: the organization's id and the user's, 32 octets of nobody's name."""
    return tenant_id.bytes + user_id.bytes


class RelyingParty:
    """The deployment, as browsers and authenticators see it."""

    def __init__(self, settings: Settings) -> None:
        self.id = settings.passkey_domain or settings.base_domain or _domain(settings.app_url) or "localhost"
        self._timeout = settings.second_factor_ttl * 1000
        if settings.passkey_origins:
            self._origins = settings.passkey_origins
        elif settings.app_url is not None:
            self._origins = (settings.app_url,)
        elif settings.base_domain is not None:
            self._origins = (f"https://{_TENANT}.{settings.base_domain}",)
        else:
            self._origins = (f"http://localhost:{settings.port}",)

    def origins(self, tenant: TenantContext) -> list[str]:
        """The origins of the organization's own pages."""
        return [_origin(each.replace(_TENANT, tenant.slug)) for each in self._origins]

    def registration(
        self,
        tenant: TenantContext,
        *,
        user_id: UUID,
        email: str,
        name: str | None,
        challenge: bytes,
        known: Iterable[Passkey],
    ) -> dict[str, Any]:
        """The argument `publicKey` of `navigator.credentials.create()`, in JSON's form."""
        return options_to_json_dict(
            webauthn.generate_registration_options(
                rp_id=self.id,
                rp_name=tenant.name,
                user_id=user_handle(tenant.id, user_id),
                user_name=email,
                user_display_name=name or email,
                challenge=challenge,
                timeout=self._timeout,
                authenticator_selection=AuthenticatorSelectionCriteria(
                    # Preferred, not required: a key that can store none is a second factor all the same.
                    resident_key=ResidentKeyRequirement.PREFERRED,
                    user_verification=UserVerificationRequirement.PREFERRED,
                ),
                exclude_credentials=_descriptors(known),
            )
        )

    def authentication(self, *, challenge: bytes, known: Iterable[Passkey] = (), alone: bool = False) -> dict[str, Any]:
        """The argument `publicKey` of `navigator.credentials.get()`; `alone` if there is no password before it."""
        needed = UserVerificationRequirement.REQUIRED if alone else UserVerificationRequirement.PREFERRED
        return options_to_json_dict(
            webauthn.generate_authentication_options(
                rp_id=self.id,
                challenge=challenge,
                timeout=self._timeout,
                allow_credentials=_descriptors(known),
                user_verification=needed,
            )
        )

    def verify_registration(self, tenant: TenantContext, credential: dict[str, Any], *, challenge: bytes) -> NewPasskey:
        """What was registered, if it answers the challenge on one of the organization's pages.

        Raises:
            InvalidPasskey: it does not.
        """
        try:
            found = webauthn.verify_registration_response(
                credential=credential,
                expected_challenge=challenge,
                expected_rp_id=self.id,
                expected_origin=self.origins(tenant),
            )
        except Exception as error:
            raise _invalid(error) from error
        return NewPasskey(
            credential_id=found.credential_id,
            public_key=found.credential_public_key,
            sign_count=found.sign_count,
            is_backed_up=found.credential_backed_up,
        )

    def verify_assertion(
        self,
        tenant: TenantContext,
        passkey: Passkey,
        credential: dict[str, Any],
        *,
        challenge: bytes,
        alone: bool = False,
    ) -> int:
        """How often the passkey was used, itself included, if it has signed the challenge on one of our pages.

        Args:
            tenant: on whose pages.
            passkey: that the credential names.
            credential: what `navigator.credentials.get()` gave, in JSON's form.
            challenge: that it was to sign.
            alone: nothing else proves who it is, so the passkey must have asked for a PIN or a fingerprint, and must
                say whose it is.

        Raises:
            InvalidPasskey: it has not; or its count is not above the one before, as a copy's would not be.
        """
        handle = credential["response"].get("userHandle")
        if handle is None and alone:
            raise InvalidPasskey("the passkey does not say whose it is")
        try:
            owner = user_handle(tenant.id, passkey.user_id) if handle is None else base64url_to_bytes(handle)
            found = webauthn.verify_authentication_response(
                credential=credential,
                expected_challenge=challenge,
                expected_rp_id=self.id,
                expected_origin=self.origins(tenant),
                credential_public_key=passkey.public_key,
                credential_current_sign_count=passkey.sign_count,
                require_user_verification=alone,
            )
        except Exception as error:
            raise _invalid(error) from error
        if owner != user_handle(tenant.id, passkey.user_id):
            raise InvalidPasskey("the passkey is another's")
        return found.new_sign_count


def _invalid(error: Exception) -> InvalidPasskey:
    # Whatever was raised: the library parses CBOR, keys and certificates that strangers send, each with exceptions of
    # its own kind, and every one of them means that nothing was proved.
    _log.info("a passkey was refused", error=type(error).__name__, reason=str(error)[:200])
    return InvalidPasskey("the passkey proves nothing")


def _descriptors(passkeys: Iterable[Passkey]) -> list[PublicKeyCredentialDescriptor]:
    return [
        PublicKeyCredentialDescriptor(
            id=passkey.credential_id,
            transports=[AuthenticatorTransport(each) for each in passkey.transports if each in _KNOWN_TRANSPORTS],
        )
        for passkey in passkeys
    ]


def _domain(address: str | None) -> str | None:
    """The host of an address, without the label in which the organization's slug is."""
    host = urlsplit(address).hostname if address is not None else None
    if host is None:
        return None
    label, _, rest = host.partition(".")
    return rest or None if _TENANT in label else host


def _origin(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}".lower()
