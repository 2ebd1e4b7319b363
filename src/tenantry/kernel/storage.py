"""The store of archives and exports: a folder, or a bucket of any server that speaks S3.

Objects appear under their keys whole or not at all. A bucket promises that by itself; a folder by a private file on
the same disk that is written, synchronized and renamed. That half is ours and not the library's, which leaves files
readable by everybody and does not wait for the disk: a tenant's only copy may be what was written.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import re
import shutil
import tempfile
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

import obstore
import structlog
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, S3Store

from tenantry.kernel.errors import UnavailableException, define_problem
from tenantry.kernel.folders import make_folder, private_folder, synchronize
from tenantry.kernel.threads import to_the_end

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

    from pydantic import SecretStr

__all__ = (
    "ObjectInfo",
    "ObjectNotFoundError",
    "Storage",
    "StorageFullError",
    "StorageKeyError",
    "StorageSettings",
    "StorageUnavailableError",
    "disk_errors",
)

_log = structlog.get_logger(__name__)

STORAGE_FULL = define_problem(
    "storage-full",
    503,
    "Storage full",
    "There is no room for an archive, an export or the files made on the way to it. Nothing half-written was left.",
)

_SEGMENT = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}"  # no longer than a file's name may be
_KEY = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
_KEY_LENGTH = 1024  # S3's own limit, in bytes
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# HTTP has 507 for it (RFC 4918 §11.5); the servers have names of their own.
_FULL_ANSWERS = ("507 Insufficient Storage", "XMinioStorageFull", "QuotaExceeded")
_CHUNK = 1 << 20
_PART = 8 << 20
_MOST_PARTS = 9_000  # of 10,000 that S3 takes


class StorageKeyError(ValueError):
    """A key that no object may have: a mistake in the code that made it."""


class ObjectNotFoundError(Exception):
    """There is no object under this key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"there is no object {key!r} in the storage")
        self.key = key


class StorageUnavailableError(UnavailableException):
    """The storage does not answer, or refuses us (503)."""

    default_detail = "The storage of archives and exports is not answering."


class StorageFullError(UnavailableException):
    """No room is left on the disk or in the bucket (503)."""

    problem = STORAGE_FULL
    default_detail = "The storage of archives and exports is full; nothing was written. Make room and try again."


class StorageSettings(Protocol):
    """What `Storage.open` reads of the settings."""

    @property
    def storage_address(self) -> str: ...
    @property
    def storage_s3_endpoint(self) -> str | None: ...
    @property
    def storage_s3_region(self) -> str | None: ...
    @property
    def storage_s3_access_key_id(self) -> str | None: ...
    @property
    def storage_s3_secret_access_key(self) -> SecretStr | None: ...


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object: its size in bytes, and the tag that changes with its content."""

    key: str
    size: int
    etag: str | None
    modified: datetime


@contextmanager
def disk_errors() -> Iterator[None]:
    """Whoever writes a file inside is told of a full disk as of a full storage.

    Raises:
        StorageFullError: the disk, the quota or the largest size of a file is used up.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StorageFullError(
            f"There is no room for the file: {os.strerror(error.errno)}. Nothing half-written was left.", retry_after=60
        ) from error


class Storage:
    """Objects by keys such as `archives/<tenant id>/<name>.zip`.

    Keys are segments of letters, digits, `.`, `_` and `-`, separated by `/`; no segment begins with a dot. Everything
    raises `StorageUnavailableError` while the storage is away, and whatever writes raises `StorageFullError`.
    """

    def __init__(self, store: LocalStore | S3Store, *, folder: Path | None, scratch: Path) -> None:
        """`folder` is None for a bucket; `scratch` is where private temporary folders are made."""
        self._store: LocalStore | S3Store = store
        self._folder = folder
        self._scratch = scratch

    @classmethod
    def open(cls, settings: StorageSettings) -> Storage:
        """The storage at `settings.storage_address`: `file:///path`, made if need be, or `s3://bucket/prefix`.

        A bucket is not asked: it may come later than we do. Without an access key in the settings, AWS' own chain
        finds one (its variables, a service account's token, the instance's role).

        Raises:
            ValueError: an address of another kind.
            StorageUnavailableError: the folder cannot be made.
        """
        parts = urlsplit(settings.storage_address)
        if parts.scheme == "file":
            folder = Path(unquote(parts.path))
            with _translated(""):
                make_folder(folder)
                make_folder(folder / ".scratch")
            return cls(LocalStore(folder, automatic_cleanup=True), folder=folder, scratch=folder / ".scratch")
        if parts.scheme == "s3":
            # Named by the user, and `private_folder` looks whose it is: others can write to /tmp as well.
            scratch = Path(tempfile.gettempdir()) / f"tenantry-{os.getuid()}"
            return cls(_open_bucket(settings, parts.netloc, parts.path.strip("/")), folder=None, scratch=scratch)
        raise ValueError(f"expected a storage address that begins with file:// or s3://, got {parts.scheme}://")

    async def put_file(self, key: str, path: Path) -> None:
        """Store what is in a local file, whatever was under the key before."""
        _check(key)
        size = (await asyncio.to_thread(path.stat)).st_size
        if self._folder is not None:
            await asyncio.to_thread(self._place, key, lambda file: _copy(path, file))
            return
        with _translated(key, writing=True):
            part = max(_PART, -(-size // _MOST_PARTS))
            await obstore.put_async(self._store, key, path, chunk_size=part, max_concurrency=4)

    async def put_bytes(self, key: str, data: bytes) -> None:
        """Store `data`, whatever was under the key before."""
        _check(key)
        if self._folder is not None:
            await asyncio.to_thread(self._place, key, lambda file: file.write(data))
            return
        with _translated(key, writing=True):
            await obstore.put_async(self._store, key, data)

    async def get_bytes(self, key: str) -> bytes:
        """All of an object.

        Raises:
            ObjectNotFoundError: there is none.
        """
        _check(key)
        with _translated(key):
            result = await obstore.get_async(self._store, key)
            return bytes(await result.bytes_async())

    async def stream(self, key: str) -> AsyncGenerator[bytes, None]:
        """An object in pieces of about a megabyte.

        Raises:
            ObjectNotFoundError: there is none; raised at the first piece.
        """
        _check(key)
        with _translated(key):
            result = await obstore.get_async(self._store, key)
            size = result.meta["size"]
            async for chunk in result.stream(min_chunk_size=_CHUNK):
                size -= len(chunk)
                yield bytes(chunk)
        if size:
            raise StorageUnavailableError("The storage ended an object before its end.")

    async def fetch_to(self, key: str, path: Path) -> None:
        """Copy an object to a local file (0600), which appears whole or not at all.

        Raises:
            ObjectNotFoundError: there is none.
        """
        with disk_errors():
            descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=".fetch-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    async with aclosing(self.stream(key)) as chunks:
                        async for chunk in chunks:
                            await to_the_end(functools.partial(file.write, chunk))
                os.replace(partial, path)
            except BaseException:
                os.unlink(partial)
                raise

    async def head(self, key: str) -> ObjectInfo | None:
        """What is known of an object, or None if there is none."""
        _check(key)
        try:
            with _translated(key):
                return _info(await obstore.head_async(self._store, key))
        except ObjectNotFoundError:
            if self._folder is None:
                # HEAD has no body to tell a bucket that is gone from an object that is; the list has.
                with _translated(key):
                    async for _ in self._store.list(key, chunk_size=1):
                        break
            return None

    async def delete(self, key: str) -> None:
        """See to it that there is no object under this key; there may have been none before."""
        _check(key)
        with suppress(ObjectNotFoundError), _translated(key):
            await obstore.delete_async(self._store, key)

    async def delete_prefix(self, prefix: str) -> int:
        """Delete everything below a folder, and return how many objects there were.

        `a/b` stands for `a/b/c`, never for `a/bc` nor for the object `a/b` itself. Whatever the objects are called:
        somebody may have made a copy of an archive beside it, whose name is no key of ours.
        """
        paths = [info.key async for info in self._below(_folder_of(prefix))]
        for path in paths:
            with suppress(ObjectNotFoundError), _translated(path):
                await obstore.delete_async(self._store, path)
        return len(paths)

    async def measure(self, prefix: str) -> tuple[int, int]:
        """How many objects there are below a folder, whatever they are called, and how many bytes they have."""
        sizes = [info.size async for info in self._below(_folder_of(prefix))]
        return len(sizes), sum(sizes)

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """Every object below a folder that has a key, in no particular order; without a prefix, every object."""
        async for info in self._below(_folder_of(prefix) if prefix else ""):
            if _KEY.fullmatch(info.key):  # not our scratch folder, nor what somebody else put beside it
                yield info

    async def _below(self, folder: str) -> AsyncIterator[ObjectInfo]:
        with _translated(folder):
            async for page in self._store.list(folder or None, chunk_size=1000):
                for found in page:
                    yield _info(found)

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Path]:
        """A private folder (0700) that is gone afterwards, on the disk of the folder store or, for a bucket, in /tmp.

        One that a killed process has left behind is removed by whoever comes next.
        """
        stack = ExitStack()
        try:
            with _translated("", writing=True):
                folder = await to_the_end(lambda: stack.enter_context(private_folder(self._scratch)))
            yield folder
        finally:
            await to_the_end(stack.close)  # in a thread: it may hold gigabytes

    def _place(self, key: str, fill: Callable[[BinaryIO], object]) -> None:
        assert self._folder is not None  # noqa: S101 - for the type checker
        with _translated(key, writing=True), private_folder(self._scratch) as scratch:
            partial = scratch / "object"
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
            _rename(key, partial, self._folder / key)


def _rename(key: str, partial: Path, target: Path) -> None:
    for attempt in range(10):
        try:
            make_folder(target.parent)
            partial.replace(target)
        except FileNotFoundError:
            # Somebody deleted the folder's last object, and the empty folder with it.
            if attempt == 9:
                raise
        except (NotADirectoryError, IsADirectoryError, FileExistsError) as error:
            raise StorageKeyError(f"{key!r} lies below an object, or has objects below it") from error
        else:
            break
    with suppress(FileNotFoundError):  # deleted already
        synchronize(target.parent)


def _open_bucket(settings: StorageSettings, bucket: str, prefix: str) -> S3Store:
    endpoint, secret = settings.storage_s3_endpoint, settings.storage_s3_secret_access_key
    given = {
        "endpoint": endpoint,
        "region": settings.storage_s3_region,
        "access_key_id": settings.storage_s3_access_key_id,
        "secret_access_key": None if secret is None else secret.get_secret_value(),
    }
    config: Any = {name: value for name, value in given.items() if value is not None}
    return S3Store(
        bucket,
        prefix=prefix or None,
        config=config,
        client_options={
            "allow_http": endpoint is not None and endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=5),
            "read_timeout": timedelta(seconds=60),
            # Of a whole answer: the library's 30 seconds would cut off every large archive.
            "timeout": timedelta(hours=6),
        },
        retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=15)},
    )


@contextmanager
def _translated(key: str, *, writing: bool = False) -> Iterator[None]:
    """The library's and the system's errors, as ours."""
    try:
        with disk_errors():
            yield
    except FileNotFoundError as error:
        if writing or "NoSuchBucket" in str(error):
            raise _unavailable(error, "The bucket or folder of archives and exports is not there.") from error
        raise ObjectNotFoundError(key) from error
    except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
        raise _unavailable(error, "The storage of archives and exports refuses this deployment.") from error
    except (BaseError, OSError) as error:
        text = str(error)
        if any(answer in text for answer in _FULL_ANSWERS):
            raise StorageFullError(retry_after=60) from error
        if any(f"(os error {code})" in text for code in (errno.ENOTDIR, errno.EISDIR)):
            raise ObjectNotFoundError(key) from error  # it would lie below an object, or has objects below it
        raise _unavailable(error) from error


def _unavailable(error: Exception, detail: str = "") -> StorageUnavailableError:
    # The first line alone: the others repeat it as the library's own structures.
    _log.warning("storage not answering", error=str(error).partition("\n")[0])
    return StorageUnavailableError(detail, retry_after=5)


def _check(key: str) -> None:
    if len(key) > _KEY_LENGTH or not _KEY.fullmatch(key):
        raise StorageKeyError(f"not a key: {key!r}")


def _folder_of(prefix: str) -> str:
    _check(folder := prefix.rstrip("/"))
    return folder


def _info(found: Any) -> ObjectInfo:
    return ObjectInfo(key=found["path"], size=found["size"], etag=found["e_tag"], modified=found["last_modified"])


def _copy(path: Path, file: BinaryIO) -> None:
    with path.open("rb") as source:
        shutil.copyfileobj(source, file, _CHUNK)
