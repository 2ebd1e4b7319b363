"""Large files on their way between this machine and the storage."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import tempfile
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.filesize import decimal

from tenantry.cli.problems import CommandError, ExitCode
from tenantry.kernel.folders import synchronize
from tenantry.kernel.storage import ObjectNotFoundError
from tenantry.kernel.threads import to_the_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import FileIO

    from tenantry.kernel.storage import Storage

__all__ = ("check_output", "fetch_to_file", "fetch_to_stdout", "size_of", "transfer_bar")


def size_of(count: int) -> str:
    """Bytes as people read them: `1.2 MB`."""
    return decimal(count)


@contextmanager
def transfer_bar(text: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar of bytes with rate and time left; call what it gives with how many more are through.

    Shown at a terminal alone, and on stderr, since stdout may be the file.
    """
    console = Console(stderr=True, highlight=False)
    if quiet or not console.is_terminal:
        yield lambda _more: None
        return
    # Rich's bars take a tenth of a second to import, which commands without one need not wait for.
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(text, total=total)
        yield lambda more: bar.advance(task, more)


def check_output(output: str, *, force: bool) -> Path:
    """Where a file is to be written, found out before anything is done for it.

    Raises:
        CommandError: there is no such folder, or something is there that may not be replaced.
    """
    # Of a link, what it leads to is replaced and not the link.
    target = Path(os.path.realpath(output))
    if not target.parent.is_dir():
        raise CommandError(f"{output}: there is no folder {target.parent}", ExitCode.USAGE)
    if target.exists():
        if not target.is_file():
            raise CommandError(f"{output}: expected the name of a file", ExitCode.USAGE)
        if not force:
            raise CommandError(f"{output} is there already: give --force to replace it", ExitCode.USAGE)
    return target


async def fetch_to_file(
    storage: Storage, key: str, output: str, *, sha256: str, force: bool, tell: Callable[[int], None]
) -> None:
    """Copy an object to a file of this user alone (0600), which appears whole and checked or not at all.

    Raises:
        CommandError: it cannot be written, or is not what it should be.
        StorageUnavailableError: it is not to be had.
    """
    with _writing(output, "nothing half-written was left"), _placed(output, force=force) as file:
        _compare(await _copy(storage, key, file, tell), sha256)


async def fetch_to_stdout(storage: Storage, key: str, *, sha256: str, tell: Callable[[int], None]) -> None:
    """Copy an object to stdout; what was printed is good only if this returns.

    Raises:
        CommandError: it cannot be written, or is not what it should be.
        StorageUnavailableError: it is not to be had.
    """
    with _writing("stdout", "what is there already is no whole archive"):
        # Without its buffer: what a full disk leaves in there would fail once more when Python ends.
        file: Any = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)
        found = await _copy(storage, key, file, tell)
    _compare(found, sha256)


@contextmanager
def _placed(output: str, *, force: bool) -> Iterator[FileIO]:
    """A file beside `output` that takes its place when all of it is on the disk."""
    target = check_output(output, force=force)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".tenantry-")
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            yield file
            os.fsync(descriptor)
        # Somebody may have written one meanwhile: an export takes its time.
        check_output(output, force=force)
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    synchronize(target.parent)


async def _copy(storage: Storage, key: str, file: FileIO, tell: Callable[[int], None]) -> str:
    """The SHA-256 of what was copied."""
    digest = hashlib.sha256()
    try:
        async with aclosing(storage.stream(key)) as chunks:
            async for chunk in chunks:
                await to_the_end(functools.partial(_write, file, chunk))
                digest.update(chunk)
                tell(len(chunk))
    except ObjectNotFoundError as error:
        raise CommandError("the file is not there any more: it has expired meanwhile", ExitCode.CONFLICT) from error
    return digest.hexdigest()


def _write(file: FileIO, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:
        # Without a buffer, the system may take a part alone.
        left = left[file.write(left) :]


def _compare(found: str, sha256: str) -> None:
    if found != sha256:
        raise CommandError(f"expected a file with the SHA-256 {sha256}, but the storage gave one with {found}")


@contextmanager
def _writing(output: str, left: str) -> Iterator[None]:
    """What the system says of a file that cannot be written, in one line."""
    try:
        yield
    except BrokenPipeError:
        raise  # whoever reads has had enough, and knows it
    except OSError as error:
        text = os.strerror(error.errno) if error.errno else str(error)
        raise CommandError(f"{output} could not be written: {text}; {left}") from error
