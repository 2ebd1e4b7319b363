"""Folders on disk that belong to one user, and those that belong to one process for a while."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("make_folder", "private_folder", "synchronize")

_log = structlog.get_logger(__name__)

_LOCK = ".lock"
_ATTEMPTS = 20


def make_folder(path: Path) -> None:
    """Make a folder and what is missing above it, each for this user alone; `mkdir(parents=True)` would not.

    Raises:
        OSError: it cannot be made, or something else has its name.
    """
    for _ in range(_ATTEMPTS):
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            if path.is_dir():
                return
            if path.exists():
                raise
        except FileNotFoundError:
            make_folder(path.parent)
        else:
            return
        # Whoever deletes the last file of a folder deletes the folder too, perhaps just now: once more.
    raise FileNotFoundError(errno.ENOENT, "the folder is deleted again and again", str(path))


def synchronize(folder: Path) -> None:
    """Wait until the names in a folder are on the disk: a rename outlives a power cut only then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def private_folder(base: Path) -> Iterator[Path]:
    """A folder inside `base` (0700) that is this process' alone, and gone afterwards.

    What a process that was killed has left behind is removed by the next one that comes: it may be a tenant's data,
    and that tenant may have been purged since. The lock inside, which the system drops with the process, tells a
    leftover from a folder in use.

    Raises:
        OSError: the folder cannot be made, or `base` is somebody else's.
    """
    base.mkdir(mode=0o700, exist_ok=True)  # not what is above it: that is gone only if a disk is not mounted
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "not a folder of ours", str(base))
    for leftover in base.iterdir():
        with _locked(leftover) as ours:
            if ours:
                _remove(leftover)
    while True:
        folder = Path(tempfile.mkdtemp(dir=base))
        with _locked(folder) as ours:
            if ours:  # else somebody swept it away between the two lines above
                try:
                    yield folder
                finally:
                    _remove(folder)
                return


def _remove(folder: Path) -> None:
    def report(_: object, path: str, raised: Any) -> None:
        # Two that sweep at once take files away under each other's hands, which does no harm.
        if not isinstance(raised[1], FileNotFoundError) and raised[1].errno != errno.ENOTEMPTY:
            _log.warning("temporary files cannot be removed", path=path, error=str(raised[1]))

    shutil.rmtree(folder, onerror=report)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether the folder is there and nobody else's; if so, it is ours inside."""
    path = folder / _LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except (FileNotFoundError, NotADirectoryError):
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.fstat(descriptor).st_nlink > 0  # unlinked: it was removed before we had it
        except BlockingIOError:
            ours = False
        yield ours
    finally:
        os.close(descriptor)
