"""The keys that sign access tokens: Ed25519 (RFC 8037) in one JSON file, shared by every process of a deployment.

One key signs. Rotating makes a new one and deletes the old one's private half; its public half stays until the last
token that it signed has expired. Processes notice a changed file by themselves, so nothing has to be restarted.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ("KeyInfo", "Keyring", "KeyringError", "SigningKey", "thumbprint")

_log = logging.getLogger(__name__)

_CHECK_INTERVAL = 1.0
_LOCK_TIMEOUT = 10.0
_MAX_SIZE = 1_048_576


class KeyringError(Exception):
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


_Signature = tuple[int, int, int]


class Keyring:
    """The ring in `path`; made by `Keyring.open`.

    Args:
        path: the JSON file.
        retain: seconds for which a retired key's public half stays: the longest token's lifetime and a leeway.
        clock: seconds since 1970.
        monotonic: seconds on a clock that never goes back.

    The file has mode 0600, in a folder of mode 0700 where the folder was made here. A file that others may read, or
    that the group may write, is refused. That the group may read it is accepted: a Kubernetes Secret mounted with
    `fsGroup` is 0440 and belongs to root, and there is no other way for a container without privileges to read it.
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
        self._path = path
        self._retain = retain
        self._clock = clock
        self._monotonic = monotonic
        self._ring, self._signature = _read(path)
        self._checked = self._forced = monotonic()
        self._failure: str | None = None

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
        if not os.path.exists(path):
            if not create:
                raise KeyringError(f"there is no keyring at {path}; the service makes it when it first starts")
            _make_folder(path)
            with _locked(path):
                if not os.path.exists(path):
                    _write(path, (_new_entry(int(clock())),))
        return cls(path, retain=retain, clock=clock, monotonic=monotonic)

    @property
    def path(self) -> Path:
        return self._path

    @property
    def retain(self) -> int:
        """Seconds for which a retired key still verifies: no token may live longer."""
        return self._retain

    def signing_key(self) -> SigningKey:
        """The key for new tokens."""
        self._refresh()
        return self._ring.signing

    def verification_key(self, kid: str) -> Ed25519PublicKey | None:
        """The public key of that name; None when there is none or its time is over.

        An unknown name makes the file be looked at at once, though not more often than once a second: a token that
        another process signed with a key made a moment ago is verified, a flood of invented names costs nothing.
        """
        self._refresh()
        found = self._ring.public.get(kid)
        if found is None:
            now = self._monotonic()
            if now - self._forced < _CHECK_INTERVAL:
                return None
            self._forced = now
            self._check(now)
            found = self._ring.public.get(kid)
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
        with _locked(self._path):
            ring, _ = _read(self._path)
            now = int(self._clock())
            kept = []
            for entry in ring.entries:
                retires_at = entry.retires_at if entry.retires_at is not None else now + self._retain
                if retires_at > now:
                    public = _Jwk(kty="OKP", crv="Ed25519", x=entry.jwk.x)
                    kept.append(_Entry(entry.kid, entry.created_at, retires_at, public))
            new = _new_entry(now)
            _write(self._path, (new, *kept))
            self._ring, self._signature = _read(self._path)
        _log.info("signing key rotated", extra={"kid": new.kid, "verifying": len(kept)})
        return KeyInfo(new.kid, new.created_at, None)

    def _valid(self) -> list[_Entry]:
        self._refresh()
        now = self._clock()
        entries = [entry for entry in self._ring.entries if entry.retires_at is None or now < entry.retires_at]
        return sorted(entries, key=lambda entry: (entry.retires_at is not None, -entry.created_at))

    def _refresh(self) -> None:
        now = self._monotonic()
        if now - self._checked >= _CHECK_INTERVAL:
            self._check(now)

    def _check(self, now: float) -> None:
        """Read the file if it changed. A damaged one leaves the last good ring in force."""
        self._checked = now
        try:
            if _signature(os.stat(self._path)) == self._signature and self._failure is None:
                return
            self._ring, self._signature = _read(self._path)
            self._failure = None
        except (KeyringError, OSError) as error:
            # Said once, not once a second for as long as it lasts.
            if str(error) != self._failure:
                self._failure = str(error)
                _log.error("keyring not reloaded, the last good one stays in force: %s", self._failure)


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


def _signature(status: os.stat_result) -> _Signature:
    return status.st_mtime_ns, status.st_ino, status.st_size


def _read(path: Path) -> tuple[_Ring, _Signature]:
    try:
        # O_NONBLOCK: a named pipe in its place must not hang the service.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise KeyringError(f"the keyring {path} cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KeyringError(f"the keyring {path} is not a file")
        if status.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
            raise KeyringError(
                f"the keyring {path} has mode {stat.S_IMODE(status.st_mode):04o} and holds private keys: "
                f"others must have no access to it and the group must not write it (chmod 600 {path})"
            )
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(_MAX_SIZE + 1)
    finally:
        os.close(descriptor)
    try:
        if len(content) > _MAX_SIZE:
            raise ValueError("too large")  # noqa: TRY301
        return _parse(msgspec.json.decode(content, type=_File)), _signature(status)
    except ValueError as error:
        # msgspec names the place ("$.keys[0].kid") and the types, never the content.
        raise KeyringError(f"the keyring {path} is damaged: {error}") from None


def _parse(file: _File) -> _Ring:
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


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise KeyringError(f"the folder of the keyring {path} cannot be made: {error.strerror}") from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the ring's lock: a file of its own beside it, since the ring itself is replaced."""
    lock = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise KeyringError(_not_writable(path, error)) from error
    try:
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise KeyringError(f"another process holds the keyring's lock {lock}") from None
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, entries: tuple[_Entry, ...]) -> None:
    """Replace the file in one step, on disk before it returns. A link is followed: its target is replaced."""
    path = path.resolve()
    content = msgspec.json.format(msgspec.json.encode(_File(entries)), indent=2) + b"\n"
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with open(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o600)
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            os.replace(draft, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
            raise
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise KeyringError(_not_writable(path, error)) from error


def _not_writable(path: Path, error: OSError) -> str:
    hint = ""
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        hint = " (where it is a mounted Secret, rotate a copy and update the Secret)"
    return f"the keyring {path} cannot be written: {error.strerror}{hint}"
