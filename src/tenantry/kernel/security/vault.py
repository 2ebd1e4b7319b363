"""Secrets that must be had back in the clear, encrypted at rest: AES-256-GCM under a key that the database never sees.

    sealed = vault.seal(secret, purpose="webhook-secret", owner=endpoint.id)      # what is stored
    secret = vault.unseal(sealed, purpose="webhook-secret", owner=endpoint.id)

A dump of the database is worth nothing for them without the vault's file, and a sealed value is worth nothing in
another row or column: purpose and owner are authenticated with it. What only has to be recognized (passwords, refresh
tokens) is hashed instead.

A sealed value is one octet for the form (1), eight that name the key, the nonce's twelve, and the ciphertext with its
tag of sixteen. Nonces are random, so one key is good for 2^32 values (NIST SP 800-38D, section 8.3).
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tenantry.kernel.security.keyfile import KeyFile, KeyFileError, KeyFormat

__all__ = (
    "MAX_SEALABLE",
    "SEAL_OVERHEAD",
    "BrokenSealError",
    "SealError",
    "SealingKeyInfo",
    "UnknownSealingKeyError",
    "Vault",
    "VaultError",
)

_log = logging.getLogger(__name__)

MAX_SEALABLE = 65_536
"""Octets of the longest secret: the vault is for keys and codes, not for documents."""

_FORM = b"\x01"
_KEY_ID, _NONCE, _TAG = 8, 12, 16
_HEADER = len(_FORM) + _KEY_ID

SEAL_OVERHEAD = _HEADER + _NONCE + _TAG
"""Octets by which a sealed value is longer than what is in it."""

_PURPOSE = re.compile(r"[a-z][a-z0-9_.:\-]{0,63}")


class VaultError(KeyFileError):
    """The vault cannot be read, trusted or written. The text says what to do and holds nothing of a key."""


class SealError(Exception):
    """A sealed value cannot be opened. The text holds nothing of the value or a key."""


class BrokenSealError(SealError):
    """It is damaged, or was sealed for another purpose or another owner; which of them nobody can tell."""


class UnknownSealingKeyError(SealError):
    """The vault does not have its key: that was lost or removed, or is in a new vault that has not come here yet."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"the vault does not have the sealing key {key_id}")
        self.key_id = key_id


@dataclass(frozen=True, slots=True)
class SealingKeyInfo:
    """A key as an operator sees it; times in seconds since 1970.

    `seals_from` is when it begins, or began, to seal; `seals` whether new values are sealed by it now. All of them
    unseal.
    """

    key_id: str
    created_at: int
    seals_from: int
    seals: bool


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    created_at: int
    seals_from: int
    key: str
    """32 octets in base64url."""

    def __repr__(self) -> str:
        return f"<sealing key {self.id}>"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: tuple[_Entry, ...]
    """The newest first."""


@dataclass(frozen=True, slots=True)
class _Ring:
    """One reading of the file. Replaced as a whole, never changed."""

    entries: tuple[_Entry, ...]
    ciphers: dict[bytes, AESGCM] = field(repr=False)


class Vault:
    """Seals and opens with the keys in the file `path`, which is read when first needed.

    Args:
        path: the JSON file; who may read it is in `KeyFile`.
        create: make it, with one key, where it is missing when first needed. For development: two machines that each
            made one would not understand each other, and one that is lost takes what it sealed with it.
        clock: seconds since 1970.
        monotonic: seconds on a clock that never goes back.
    """

    def __init__(
        self,
        path: Path,
        *,
        create: bool = False,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._create = create
        self._clock = clock
        self._monotonic = monotonic
        self._opened: KeyFile[_Ring] | None = None

    def __repr__(self) -> str:
        return f"<Vault {self._path}>"

    @classmethod
    def make(cls, path: Path, *, clock: Callable[[], float] = time.time) -> bool:
        """Make the file with one key where there is none yet, and tell whether it was made.

        Raises:
            VaultError: it cannot be written.
        """
        made = KeyFile.make(path, _VAULT, lambda: _File((_new_entry(int(clock())),)))
        if made:
            _log.info("vault made; without this file nothing that it sealed can be read", extra={"path": str(path)})
        return made

    @property
    def path(self) -> Path:
        return self._path

    def open(self) -> None:
        """Read the file now, and not when it is first needed.

        Raises:
            VaultError: the file is missing (and not to be made here), damaged, open to others, or cannot be made.
        """
        self._file()

    def seal(self, plain: bytes, *, purpose: str, owner: UUID) -> bytes:
        """Encrypt `plain`; the result is `SEAL_OVERHEAD` octets longer, and another each time.

        `purpose` says what kind of secret it is (64 of a-z, 0-9, `_`, `.`, `:`, `-`), `owner` whose: both must be given
        again to open it. Changing either in the code orphans what is stored.

        Raises:
            ValueError: `plain` is longer than `MAX_SEALABLE`, or the purpose is not of that form.
            VaultError: the vault cannot be opened.
        """
        if len(plain) > MAX_SEALABLE:
            raise ValueError(f"at most {MAX_SEALABLE} octets can be sealed, not {len(plain)}")
        ring = self._file().current()
        key_id = bytes.fromhex(self._sealing(ring).id)
        header = _FORM + key_id
        nonce = secrets.token_bytes(_NONCE)
        return header + nonce + ring.ciphers[key_id].encrypt(nonce, plain, _bound(header, purpose, owner))

    def unseal(self, sealed: bytes, *, purpose: str, owner: UUID) -> bytes:
        """Open what `seal` returned for the same purpose and owner.

        A key that is not known makes the file be looked at at once: another process may have made it a moment ago.

        Raises:
            BrokenSealError: it is damaged, or another's.
            UnknownSealingKeyError: its key is not in the vault.
            ValueError: the purpose is not of the form that `seal` takes.
            VaultError: the vault cannot be opened.
        """
        key_id = _key_id(sealed)
        file = self._file()
        cipher = file.current().ciphers.get(key_id) or file.check().ciphers.get(key_id)
        if cipher is None:
            raise UnknownSealingKeyError(key_id.hex())
        header, nonce = sealed[:_HEADER], sealed[_HEADER : _HEADER + _NONCE]
        try:
            return cipher.decrypt(nonce, sealed[_HEADER + _NONCE :], _bound(header, purpose, owner))
        except InvalidTag:
            raise BrokenSealError("the sealed value is damaged, or of another purpose or owner") from None

    def derive_key(self, *, purpose: str, salt: bytes, key_id: str | None = None) -> tuple[str, bytes]:
        """A key of 32 octets for one use, and the name of the vault's key that it comes from (HKDF, RFC 5869).

        For what is too large to be sealed. `salt` makes it another each time and is no secret; who derived the key
        tells it and the name to whoever is to derive it again. Without `key_id`, of the key that seals now.

        Raises:
            UnknownSealingKeyError: the vault has no such key.
            ValueError: the purpose is not of the form that `seal` takes.
            VaultError: the vault cannot be opened.
        """
        file = self._file()
        ring = file.current()
        if key_id is None:
            key_id = self._sealing(ring).id
        entry = _entry_of(ring, key_id) or _entry_of(file.check(), key_id)
        if entry is None:
            raise UnknownSealingKeyError(key_id)
        info = _bound(b"tenantry-derived-key\0", purpose, UUID(int=0))
        return key_id, HKDF(hashes.SHA256(), 32, salt, info).derive(_key_of(entry))

    def needs_resealing(self, sealed: bytes) -> bool:
        """Whether it was sealed by another key than the one that seals now.

        Raises:
            BrokenSealError: it is no sealed value at all.
            VaultError: the vault cannot be opened.
        """
        return _key_id(sealed).hex() != self._sealing(self._file().current()).id

    def keys(self) -> list[SealingKeyInfo]:
        """Every key, the newest first.

        Raises:
            VaultError: the vault cannot be opened.
        """
        return self._infos(self._file().current())

    def rotate(self, *, delay: int = 0) -> SealingKeyInfo:
        """Make a new key and return it; it seals `delay` seconds from now on, the others go on to unseal.

        Processes that share the file have the new key at once. Where each gets a copy of its own, and some get it
        later than others, `delay` must be longer than that takes: nothing is sealed that another cannot open.

        Raises:
            ValueError: `delay` is negative.
            VaultError: the file is missing, damaged or cannot be written. Nothing is changed then.
        """
        if delay < 0:
            raise ValueError("delay is a number of seconds, 0 or more")

        def add(ring: _Ring) -> _File:
            return _File((_new_entry(int(self._clock()), delay), *ring.entries))

        new = self._infos(self._file().change(add))[0]
        _log.info("sealing key rotated", extra={"key": new.key_id, "delay": delay})
        return new

    def remove(self, key_id: str) -> SealingKeyInfo:
        """Delete a key, and with it whatever is still sealed by it; return what it was.

        Raises:
            LookupError: there is no such key.
            ValueError: it is the one that seals.
            VaultError: the file is missing, damaged or cannot be written. Nothing is changed then.
        """
        removed: list[SealingKeyInfo] = []

        def drop(ring: _Ring) -> _File:
            found = next((info for info in self._infos(ring) if info.key_id == key_id), None)
            if found is None:
                raise LookupError(f"there is no sealing key {key_id} in {self._path}")
            if found.seals:
                raise ValueError(f"{key_id} is the key that seals; rotate first")
            removed.append(found)
            return _File(tuple(entry for entry in ring.entries if entry.id != key_id))

        self._file().change(drop)
        _log.info("sealing key removed; what it sealed cannot be read any more", extra={"key": key_id})
        return removed[0]

    def _file(self) -> KeyFile[_Ring]:
        if self._opened is None:
            if self._create:
                self.make(self._path, clock=self._clock)
            elif not self._path.exists():
                raise VaultError(
                    f"there is no vault at {self._path}: TENANTRY_VAULT_FILE says where it is, `tenantry keys create` "
                    "makes one"
                )
            self._opened = KeyFile(self._path, _VAULT, monotonic=self._monotonic)
        return self._opened

    def _sealing(self, ring: _Ring) -> _Entry:
        now = self._clock()
        # The oldest where none has begun: the clock of whoever made the file may be ahead of this one.
        return next((entry for entry in ring.entries if entry.seals_from <= now), ring.entries[-1])

    def _infos(self, ring: _Ring) -> list[SealingKeyInfo]:
        sealing = self._sealing(ring)
        return [
            SealingKeyInfo(entry.id, entry.created_at, entry.seals_from, entry is sealing) for entry in ring.entries
        ]


def _key_id(sealed: bytes) -> bytes:
    if len(sealed) < SEAL_OVERHEAD or not sealed.startswith(_FORM):
        raise BrokenSealError("this is no sealed value")
    return sealed[len(_FORM) : _HEADER]


def _entry_of(ring: _Ring, key_id: str) -> _Entry | None:
    return next((entry for entry in ring.entries if entry.id == key_id), None)


def _key_of(entry: _Entry) -> bytes:
    return base64.b64decode(entry.key + "=", altchars=b"-_", validate=True)


def _bound(header: bytes, purpose: str, owner: UUID) -> bytes:
    """What is authenticated beside the secret. Only the last part's length varies, so no two meanings are one text."""
    if _PURPOSE.fullmatch(purpose) is None:
        raise ValueError(f"a purpose is made of a-z, 0-9, _ . : and -, and has at most 64 of them, unlike {purpose!r}")
    return header + owner.bytes + purpose.encode("ascii")


def _new_entry(now: int, delay: int = 0) -> _Entry:
    key = AESGCM.generate_key(256)
    return _Entry(_name(key), now, now + delay, base64.urlsafe_b64encode(key).decode("ascii").rstrip("="))


def _name(key: bytes) -> str:
    # Of the key itself: one that was mistyped or mixed up is found when the file is read, and not when values are lost.
    return hashlib.sha256(b"tenantry sealing key\0" + key).digest()[:_KEY_ID].hex()


def _parse(content: bytes) -> _Ring:
    file = msgspec.json.decode(content, type=_File)
    ciphers: dict[bytes, AESGCM] = {}
    for place, entry in enumerate(file.keys):
        try:
            key = _key_of(entry)
        except ValueError:
            key = b""
        if len(key) != 32 or entry.id != _name(key) or bytes.fromhex(entry.id) in ciphers:
            raise ValueError(f"key {place} is not 32 octets in base64url, is not the one of its id, or is there twice")
        ciphers[bytes.fromhex(entry.id)] = AESGCM(key)
    if not ciphers:
        raise ValueError("it has no key")
    return _Ring(file.keys, ciphers)


_VAULT = KeyFormat("vault", VaultError, _parse)
