"""An encrypted file: written in one go, read anywhere in it, and refused as a whole where a bit of it is another.

The construction is STREAM (Hoang, Reyhanitabar, Rogaway and Vizár, 2015), as age uses it, with AES-256-GCM: pieces of
64 KiB, each with its number and whether it is the last one in its nonce. So none can be changed, left out, doubled,
moved, cut off at the end, or taken from another file.

    8 octets   TNTRYBK and the form, 1
    8          the id of the key, as the key file names it
    32         a salt: the file's own key is derived with it, so that numbers are good for nonces
    pieces     65,536 octets each but the last one, encrypted, each with its tag of 16

The header, and the name under which the file is kept, are authenticated with every piece.
"""

from __future__ import annotations

import hashlib
import io
import secrets
from typing import IO, TYPE_CHECKING, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tenantry.kernel.security.vault import UnknownSealingKeyError

if TYPE_CHECKING:
    from pathlib import Path

    from tenantry.kernel.security import Vault

__all__ = ("BackupDamagedError", "SealedReader", "SealedWriter", "open_bytes", "open_sealed", "seal_bytes")

_MAGIC = b"TNTRYBK\x01"
_KEY_ID, _SALT, _TAG = 8, 32, 16
_HEADER = len(_MAGIC) + _KEY_ID + _SALT
_PIECE = 65_536
_PURPOSE = "backup"


class BackupDamagedError(Exception):
    """A backup's file is not what was written, or was written under a key that is not here. Nothing of it is used."""


class SealedWriter:
    """Encrypts what is written into `file`, which stays the caller's to close; `finish` ends it.

    `name` is the key under which it will be kept. `size` and `sha256` are of what has gone into `file`.
    """

    def __init__(self, file: IO[bytes], vault: Vault, *, name: str) -> None:
        """Raises `VaultError` where the keys cannot be read."""
        salt = secrets.token_bytes(_SALT)
        self.key_id, key = vault.derive_key(purpose=_PURPOSE, salt=salt)
        self._cipher = AESGCM(key)
        header = _MAGIC + bytes.fromhex(self.key_id) + salt
        self._bound = header + name.encode()
        self._file = file
        self._held = bytearray()
        self._pieces = 0
        self._digest = hashlib.sha256()
        self.size = 0
        self._put(header)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: bytes, /) -> int:
        self._held += data
        # The last piece is known to be the last when there is no more: a full one is kept until something follows.
        while len(self._held) > _PIECE:
            self._seal(bytes(self._held[:_PIECE]), last=False)
            del self._held[:_PIECE]
        return len(data)

    def flush(self) -> None:
        """For those who write files; what is not a whole piece waits all the same."""

    def finish(self) -> None:
        """Write the last piece. Whoever never calls it has written a file that nobody reads."""
        self._seal(bytes(self._held), last=True)
        self._held.clear()

    def _seal(self, piece: bytes, *, last: bool) -> None:
        self._put(self._cipher.encrypt(_nonce(self._pieces, last=last), piece, self._bound))
        self._pieces += 1

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)


class SealedReader(io.RawIOBase):
    """What such a file holds, in any order; every piece is checked before anything of it is given out.

    Holds one piece at a time. Whether the end is the end is looked at first. `open_sealed` makes one that reads as much
    as it is asked for.
    """

    def __init__(self, file: IO[bytes], vault: Vault, *, name: str) -> None:
        """`file` is closed with this one, or if this fails.

        Raises:
            BackupDamagedError: it is none of this form, was cut off or renamed, or is of an unknown key.
        """
        self._file = file
        try:
            self._size = self._begin(vault, name)
        except BaseException:
            self._file.close()
            raise
        self._position = 0

    def _begin(self, vault: Vault, name: str) -> int:
        header = self._file.read(_HEADER)
        if len(header) < _HEADER or not header.startswith(_MAGIC):
            raise BackupDamagedError(f"{name} is no backup of this form")
        key_id = header[len(_MAGIC) : len(_MAGIC) + _KEY_ID].hex()
        try:
            _, key = vault.derive_key(purpose=_PURPOSE, salt=header[-_SALT:], key_id=key_id)
        except UnknownSealingKeyError as error:
            raise BackupDamagedError(f"{name} was encrypted with the key {key_id}, which {vault.path} lacks") from error
        self._cipher, self._bound, self._name = AESGCM(key), header + name.encode(), name
        length = self._file.seek(0, io.SEEK_END) - _HEADER
        whole, rest = divmod(length, _PIECE + _TAG)
        self._pieces = whole + (1 if rest else 0)
        if length < _TAG or (rest and rest < _TAG):
            raise BackupDamagedError(f"{name} is cut off")
        self._number = -1
        self._plain = self._piece(self._pieces - 1)
        return length - self._pieces * _TAG

    def _piece(self, number: int) -> bytes:
        if number != self._number:
            self._file.seek(_HEADER + number * (_PIECE + _TAG))
            data = self._file.read(_PIECE + _TAG)
            try:
                nonce = _nonce(number, last=number == self._pieces - 1)
                self._plain = self._cipher.decrypt(nonce, data, self._bound)
            except InvalidTag:
                raise BackupDamagedError(
                    f"{self._name} is damaged, cut off or another's: piece {number + 1} of {self._pieces}"
                ) from None
            self._number = number
        return self._plain

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError(22, "Invalid argument")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._size:
            return 0
        number, within = divmod(self._position, _PIECE)
        data = self._piece(number)[within : within + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def seal_bytes(data: bytes, vault: Vault, *, name: str) -> bytes:
    """A small file of the same form."""
    file = io.BytesIO()
    writer = SealedWriter(file, vault, name=name)
    writer.write(data)
    writer.finish()
    return file.getvalue()


def open_sealed(path: Path, vault: Vault, *, name: str) -> io.BufferedReader:
    """A file as its content; closing it closes all of it.

    Raises:
        BackupDamagedError: as `SealedReader`, here and whenever it is read.
    """
    return io.BufferedReader(SealedReader(path.open("rb"), vault, name=name), _PIECE)


def open_bytes(sealed: bytes, vault: Vault, *, name: str) -> bytes:
    """All of a small file.

    Raises:
        BackupDamagedError: it is not what was written.
    """
    with SealedReader(io.BytesIO(sealed), vault, name=name) as reader:
        return reader.readall() or b""


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if last else b"\x00")
