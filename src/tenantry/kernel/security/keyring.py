"""The keys that sign access tokens: Ed25519 (RFC 8037) in one JSON file, shared by every process of a deployment.

One key signs. Rotating makes a new one and deletes the old one's private half; its public half stays until the last
token that it signed has expired. Processes notice a changed file by themselves, so nothing has to be restarted.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tenantry.kernel.security.keyfile import CHECK_INTERVAL, KeyFile, KeyFileError, KeyFormat

__all__ = ("KeyInfo", "Keyring", "KeyringError", "SigningKey", "thumbprint")

_log = logging.getLogger(__name__)


class KeyringError(KeyFileError):
    """The keyring cannot be read, trusted or written. The text says what to do and holds nothing of a key."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The key that signs new tokens, and the `kid` that their header names."""

    kid: str
    private: Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key as an operator sees it; times in seconds since 1970. `retires_at` is None for the key that signs."""

    kid: str
    created_at: int
    retires_at: int | None


class _Jwk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """RFC 8037, section 2: `x` the public key, `d` the private one, 32 octets each in base64url."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: str
    d: str | None = None


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kid: str
    created_at: int
    retires_at: int | None
    jwk: _Jwk


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: tuple[_Entry, ...]


@dataclass(frozen=True, slots=True)
class _Ring:
    """One reading of the file. Replaced as a whole, never changed."""

    entries: tuple[_Entry, ...]
    signing: SigningKey
    public: dict[str, tuple[Ed25519PublicKey, int | None]]


class Keyring:
    """The ring in `path`; made by `Keyring.open`.

    Args:
        path: the JSON file.
        retain: seconds for which a retired key's public half stays: the longest token's lifetime and a leeway.
        clock: seconds since 1970.
        monotonic: seconds on a clock that never goes back.

    Who may read the file is in `KeyFile`.
    """

    def __init__(
        self,
        path: Path,
        *,
        retain: int,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if retain < 1:
            raise ValueError("retain is a positive number of seconds")
        self._retain = retain
        self._clock = clock
        self._monotonic = monotonic
        self._file = KeyFile(path, _KEYRING, monotonic=monotonic)
        self._forced = monotonic()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        retain: int,
        create: bool = True,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> Keyring:
        """Read the ring; where there is none yet, make one with one key (unless `create` is False).

        Of two processes that start at once, one makes the key and the other reads it.

        Raises:
            KeyringError: the file is damaged, readable by others, cannot be written, or is missing with `create` off.
        """
        if create:
            KeyFile.make(path, _KEYRING, lambda: _File((_new_entry(int(clock())),)))
        elif not path.exists():
            raise KeyringError(f"there is no keyring at {path}; the service makes it when it first starts")
        return cls(path, retain=retain, clock=clock, monotonic=monotonic)

    @property
    def path(self) -> Path:
        return self._file.path

    @property
    def retain(self) -> int:
        """Seconds for which a retired key still verifies: no token may live longer."""
        return self._retain

    def signing_key(self) -> SigningKey:
        """The key for new tokens."""
        return self._file.current().signing

    def verification_key(self, kid: str) -> Ed25519PublicKey | None:
        """The public key of that name; None when there is none or its time is over.

        An unknown name makes the file be looked at at once, though not more often than once a second: a token that
        another process signed with a key made a moment ago is verified, a flood of invented names costs nothing.
        """
        found = self._file.current().public.get(kid)
        if found is None:
            now = self._monotonic()
            if now - self._forced < CHECK_INTERVAL:
                return None
            self._forced = now
            found = self._file.check().public.get(kid)
            if found is None:
                return None
        key, retires_at = found
        return key if retires_at is None or self._clock() < retires_at else None

    def keys(self) -> list[KeyInfo]:
        """Every key that still verifies, the one that signs first."""
        return [KeyInfo(entry.kid, entry.created_at, entry.retires_at) for entry in self._valid()]

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public keys as a JWK Set (RFC 7517, section 5), for `/.well-known/jwks.json`."""
        return {
            "keys": [
                {
                    "kty": "OKP",
                    "crv": "Ed25519",
                    "x": entry.jwk.x,
                    "kid": entry.kid,
                    "use": "sig",
                    "alg": "EdDSA",
                }
                for entry in self._valid()
            ]
        }

    def rotate(self) -> KeyInfo:
        """Make a new signing key and return it.

        The old key's private half is deleted, its public half stays for `retain` seconds; keys whose time is over are
        dropped. Other processes sign with the new key within a second.

        Raises:
            KeyringError: the file is damaged or cannot be written. Nothing is changed then.
        """

        def retire(ring: _Ring) -> _File:
            now = int(self._clock())
            kept = []
            for entry in ring.entries:
                retires_at = entry.retires_at if entry.retires_at is not None else now + self._retain
                if retires_at > now:
                    public = _Jwk(kty="OKP", crv="Ed25519", x=entry.jwk.x)
                    kept.append(_Entry(entry.kid, entry.created_at, retires_at, public))
            return _File((_new_entry(now), *kept))

        new, *kept = self._file.change(retire).entries
        _log.info("signing key rotated", extra={"kid": new.kid, "verifying": len(kept)})
        return KeyInfo(new.kid, new.created_at, None)

    def _valid(self) -> list[_Entry]:
        now = self._clock()
        entries = [
            entry for entry in self._file.current().entries if entry.retires_at is None or now < entry.retires_at
        ]
        return sorted(entries, key=lambda entry: (entry.retires_at is not None, -entry.created_at))


def thumbprint(x: str) -> str:
    """The `kid` of an Ed25519 key: the JWK thumbprint (RFC 7638; RFC 8037, appendix A.3) of its public half."""
    canonical = f'{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}'
    return _encode(hashlib.sha256(canonical.encode("ascii")).digest())


def _encode(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).decode("ascii").rstrip("=")


def _decode(text: str) -> bytes:
    octets = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if len(octets) != 32 or _encode(octets) != text:
        raise ValueError("not 32 octets in base64url")
    return octets


def _new_entry(now: int) -> _Entry:
    private = Ed25519PrivateKey.generate()
    x = _encode(private.public_key().public_bytes_raw())
    return _Entry(thumbprint(x), now, None, _Jwk("OKP", "Ed25519", x, _encode(private.private_bytes_raw())))


def _parse(content: bytes) -> _Ring:
    file = msgspec.json.decode(content, type=_File)
    signing: list[SigningKey] = []
    public: dict[str, tuple[Ed25519PublicKey, int | None]] = {}
    for place, entry in enumerate(file.keys):
        key = Ed25519PublicKey.from_public_bytes(_decode(entry.jwk.x))
        if entry.kid != thumbprint(entry.jwk.x) or entry.kid in public:
            raise ValueError(f"the kid of key {place} is not its thumbprint, or is there twice")
        if (entry.retires_at is None) != (entry.jwk.d is not None):
            raise ValueError(f"key {place} is neither a signing key nor a retired one")
        if entry.jwk.d is not None:
            private = Ed25519PrivateKey.from_private_bytes(_decode(entry.jwk.d))
            if private.public_key() != key:
                raise ValueError(f"the halves of key {place} do not belong together")
            signing.append(SigningKey(entry.kid, private))
        public[entry.kid] = key, entry.retires_at
    if len(signing) != 1:
        raise ValueError(f"it has {len(signing)} signing keys instead of one")
    return _Ring(file.keys, signing[0], public)


_KEYRING = KeyFormat("keyring", KeyringError, _parse)
