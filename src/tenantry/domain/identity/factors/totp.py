"""Codes of authenticator apps: RFC 6238, with what all apps have (SHA-1, six digits, steps of thirty seconds)."""

from __future__ import annotations

import base64
import hmac
import secrets
from dataclasses import dataclass

import pyotp
import segno

__all__ = ("DRIFT", "STEP", "Enrolment", "enrolment", "find_step", "new_secret", "step_at")

STEP = 30
"""Seconds."""
DRIFT = 1
"""Steps before and after the present one whose codes are taken: clocks differ, and people type slowly (section 5.2)."""
_SECRET_OCTETS = 20
"""As long as a SHA-1, as RFC 4226, section 4 (R6), recommends."""


def new_secret() -> bytes:
    """The secret of a new authenticator, of 160 random bits."""
    return secrets.token_bytes(_SECRET_OCTETS)


def step_at(moment: float) -> int:
    """The time step of a moment, in seconds since 1970."""
    return int(moment // STEP)


def find_step(secret: bytes, code: str, *, now: float, last: int | None) -> int | None:
    """The time step whose code this is, or None if it is none that may be taken now.

    Args:
        secret: of the authenticator.
        code: six digits.
        now: seconds since 1970.
        last: the step of the last code that was taken; its code, and those of steps before, are not taken again (RFC
            6238, section 5.2): somebody may have looked over a shoulder.

    Where two steps have one code, the answer is the later one: the other would leave the code good for a second time.
    """
    otp = _otp(secret)
    present, found = step_at(now), None
    # All of them, whichever it is: the time it takes tells nothing.
    for step in range(max(0, present - DRIFT), present + DRIFT + 1):
        matches = hmac.compare_digest(otp.generate_otp(step).encode(), code.encode())
        if matches and (last is None or step > last):
            found = step
    return found


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What an app needs to know of a secret, in the forms in which they take it."""

    secret: str
    """In Base32, to be typed in."""
    uri: str
    """`otpauth://totp/…`."""
    svg: str
    """The URI as a QR code: a `data:` URL of an SVG."""
    png: str
    """Likewise, of a PNG."""


def enrolment(secret: bytes, *, account: str, issuer: str) -> Enrolment:
    """How an app is told the secret; it shows the account's name and the issuer's."""
    # A colon separates the two in the URI's label: what apps do with a second one differs.
    uri = _otp(secret).provisioning_uri(name=account, issuer_name=issuer.replace(":", " "))
    code = segno.make(uri, error="m", micro=False)
    return Enrolment(
        secret=_base32(secret),
        uri=uri,
        svg=code.svg_data_uri(scale=4),
        png=code.png_data_uri(scale=4),
    )


def _base32(secret: bytes) -> str:
    return base64.b32encode(secret).decode().rstrip("=")


def _otp(secret: bytes) -> pyotp.TOTP:
    return pyotp.TOTP(_base32(secret), interval=STEP)
