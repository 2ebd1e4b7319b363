"""What people hold in their hands: an authenticator app, and a device with passkeys, in software.

The device is the browser and the authenticator in one: it signs whatever page it is told to be on, so that a test can
be on the wrong one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import struct
from dataclasses import dataclass, field
from typing import Any

import cbor2
import pyotp
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ("Device", "Phone", "unpadded")

_PRESENT, _VERIFIED, _ELIGIBLE, _BACKED_UP, _ATTESTED = 0x01, 0x04, 0x08, 0x10, 0x40


def unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _octets(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class Phone:
    """An authenticator app, whose clock the test sets, in seconds since 1970."""

    secret: str
    clock: float

    def code(self, *, steps: int = 0) -> str:
        """What it shows, or will show so many steps from now."""
        return pyotp.TOTP(self.secret).at(int(self.clock) + 30 * steps)


@dataclass
class _Held:
    rp_id: str
    user_handle: bytes
    key: ec.EllipticCurvePrivateKey
    count: int = 0


@dataclass
class Device:
    """A device with passkeys (WebAuthn Level 3, section 6)."""

    origin: str
    verifies: bool = True
    """Whether it asks for a fingerprint."""
    counts: bool = True
    """Whether it counts how often a passkey was used."""
    says_whose: bool = True
    """Whether it gives the user handle back."""
    held: dict[bytes, _Held] = field(default_factory=dict)

    def create(self, options: dict[str, Any]) -> dict[str, Any]:
        """`navigator.credentials.create()`, and the answer's `toJSON()`."""
        assert -7 in {each["alg"] for each in options["pubKeyCredParams"]}
        known = {_octets(each["id"]) for each in options["excludeCredentials"]}
        assert not known & self.held.keys(), "the browser would refuse: it is registered already"
        credential_id = secrets.token_bytes(32)
        held = _Held(options["rp"]["id"], _octets(options["user"]["id"]), ec.generate_private_key(ec.SECP256R1()))
        self.held[credential_id] = held
        numbers = held.key.public_key().public_numbers()
        # COSE_Key of ES256 (RFC 9053, section 7.1.1).
        cose = cbor2.dumps({1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")})
        attested = bytes(16) + struct.pack(">H", len(credential_id)) + credential_id + cose
        data = self._authenticator_data(held, _ATTESTED) + attested
        return self._answer(
            credential_id,
            {
                "clientDataJSON": unpadded(self._client_data("webauthn.create", options["challenge"])),
                "attestationObject": unpadded(cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})),
                "transports": ["internal", "hybrid"],
                "publicKeyAlgorithm": -7,
            },
        )

    def get(self, options: dict[str, Any], *, credential_id: bytes | None = None) -> dict[str, Any]:
        """`navigator.credentials.get()`, and the answer's `toJSON()`; the first passkey that fits, or a given one."""
        allowed = [_octets(each["id"]) for each in options["allowCredentials"]]
        fitting = [each for each in (allowed or self.held) if each in self.held]
        chosen = credential_id or fitting[0]
        held = self.held[chosen]
        assert held.rp_id == options["rpId"], "the browser would not offer it"
        held.count += 1
        data = self._authenticator_data(held)
        client_data = self._client_data("webauthn.get", options["challenge"])
        signature = held.key.sign(data + hashlib.sha256(client_data).digest(), ec.ECDSA(hashes.SHA256()))
        return self._answer(
            chosen,
            {
                "clientDataJSON": unpadded(client_data),
                "authenticatorData": unpadded(data),
                "signature": unpadded(signature),
                "userHandle": unpadded(held.user_handle) if self.says_whose else None,
            },
        )

    def _authenticator_data(self, held: _Held, more: int = 0) -> bytes:
        flags = _PRESENT | _ELIGIBLE | _BACKED_UP | more | (_VERIFIED if self.verifies else 0)
        count = held.count if self.counts else 0
        return hashlib.sha256(held.rp_id.encode()).digest() + struct.pack(">BI", flags, count)

    def _client_data(self, kind: str, challenge: str) -> bytes:
        return json.dumps({"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False}).encode()

    @staticmethod
    def _answer(credential_id: bytes, response: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": unpadded(credential_id),
            "rawId": unpadded(credential_id),
            "type": "public-key",
            "response": response,
            "authenticatorAttachment": "platform",
            "clientExtensionResults": {},
        }
