"""A file of keys that every process of a deployment shares: who may read it, how it is replaced, how it is noticed.

The keyring (signing keys) and the vault (sealing keys) are such files. What is in one is the business of its format.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

__all__ = ("CHECK_INTERVAL", "KeyFile", "KeyFileError", "KeyFormat")

_log = logging.getLogger(__name__)

CHECK_INTERVAL = 1.0
"""Seconds after which a process looks whether the file has changed."""

_LOCK_TIMEOUT = 10.0
_MAX_SIZE = 1_048_576

RingT = TypeVar("RingT")
_Signature = tuple[int, int, int]


class KeyFileError(Exception):
    """A file of keys cannot be read, trusted or written. The text says what to do and holds nothing of a key."""


@dataclass(frozen=True, slots=True)
class KeyFormat(Generic[RingT]):
    """One kind of such file.

    `name` is what messages call it, `error` what is raised. `parse` reads the content, and raises ValueError with a
    text that shows nothing of a key.
    """

    name: str
    error: type[KeyFileError]
    parse: Callable[[bytes], RingT]


class KeyFile(Generic[RingT]):
    """The file at `path`, as it was when it was last looked at.

    It has mode 0600, in a folder of mode 0700 where the folder was made here. A file that others may read, or
    that the group may write, is refused. That the group may read it is accepted: a Kubernetes Secret mounted with
    `fsGroup` is 0440 and belongs to root, and there is no other way for a container without privileges to read it.

    Raises:
        KeyFileError: of the format's own class; the file is missing, damaged or open to others.
    """

    def __init__(self, path: Path, kind: KeyFormat[RingT], *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._kind = kind
        self._monotonic = monotonic
        self._ring, self._signature = _read(path, kind)
        self._checked = monotonic()
        self._failure: str | None = None

    @staticmethod
    def make(path: Path, kind: KeyFormat[RingT], content: Callable[[], msgspec.Struct]) -> bool:
        """Write the file where there is none yet, and tell whether it was written.

        Of two processes that do so at once, one writes and the other finds it there.

        Raises:
            KeyFileError: it cannot be written.
        """
        if os.path.exists(path):
            return False
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise kind.error(f"the folder of the {kind.name} {path} cannot be made: {error.strerror}") from error
        with _locked(path, kind):
            if os.path.exists(path):
                return False
            _write(path, kind, content())
        return True

    @property
    def path(self) -> Path:
        return self._path

    def current(self) -> RingT:
        """What is in it; looked at again where the last time was a second ago."""
        if self._monotonic() - self._checked >= CHECK_INTERVAL:
            self.check()
        return self._ring

    def check(self) -> RingT:
        """What is in it now, read again if it changed. A damaged one leaves the last good one in force."""
        self._checked = self._monotonic()
        try:
            if _signature(os.stat(self._path)) == self._signature and self._failure is None:
                return self._ring
            self._ring, self._signature = _read(self._path, self._kind)
            self._failure = None
        except (KeyFileError, OSError) as error:
            # Said once, not once a second for as long as it lasts.
            if str(error) != self._failure:
                self._failure = str(error)
                _log.error("%s not reloaded, the last good one stays in force: %s", self._kind.name, self._failure)
        return self._ring

    def change(self, edit: Callable[[RingT], msgspec.Struct]) -> RingT:
        """Replace it by what `edit` makes of it; nobody else changes it meanwhile.

        Raises:
            KeyFileError: the file is damaged or cannot be written. Nothing is changed then.
        """
        with _locked(self._path, self._kind):
            ring, _ = _read(self._path, self._kind)
            _write(self._path, self._kind, edit(ring))
            self._ring, self._signature = _read(self._path, self._kind)
        return self._ring


def _signature(status: os.stat_result) -> _Signature:
    return status.st_mtime_ns, status.st_ino, status.st_size


def _read(path: Path, kind: KeyFormat[RingT]) -> tuple[RingT, _Signature]:
    try:
        # O_NONBLOCK: a named pipe in its place must not hang the service.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise kind.error(f"the {kind.name} {path} cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise kind.error(f"the {kind.name} {path} is not a file")
        if status.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
            raise kind.error(
                f"the {kind.name} {path} has mode {stat.S_IMODE(status.st_mode):04o} and holds secret keys: "
                f"others must have no access to it and the group must not write it (chmod 600 {path})"
            )
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(_MAX_SIZE + 1)
    finally:
        os.close(descriptor)
    try:
        if len(content) > _MAX_SIZE:
            raise ValueError("too large")  # noqa: TRY301
        return kind.parse(content), _signature(status)
    except ValueError as error:
        # msgspec names the place ("$.keys[0].kid") and the types, never the content.
        raise kind.error(f"the {kind.name} {path} is damaged: {error}") from None


@contextlib.contextmanager
def _locked(path: Path, kind: KeyFormat[RingT]) -> Iterator[None]:
    """Hold the file's lock: a file of its own beside it, since the file itself is replaced."""
    lock = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise kind.error(_not_writable(path, kind, error)) from error
    try:
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise kind.error(f"another process holds the {kind.name}'s lock {lock}") from None
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, kind: KeyFormat[RingT], content: msgspec.Struct) -> None:
    """Replace the file in one step, on disk before it returns. A link is followed: its target is replaced."""
    path = path.resolve()
    text = msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with open(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o600)
                file.write(text)
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
        raise kind.error(_not_writable(path, kind, error)) from error


def _not_writable(path: Path, kind: KeyFormat[RingT], error: OSError) -> str:
    hint = ""
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        hint = " (where it is a mounted Secret, make or rotate a copy and update the Secret)"
    return f"the {kind.name} {path} cannot be written: {error.strerror}{hint}"
