"""What a folder promises besides: private files, and nothing half-written whatever happens."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import pytest

from tenantry.kernel.storage import ObjectNotFoundError, Storage, StorageKeyError, StorageUnavailableError
from tests.kernel.test_storage import Given, keys


@dataclass(frozen=True)
class Folder:
    """A storage, and the folder that it is in."""

    path: Path
    storage: Storage


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    path = tmp_path / "a folder" / "store"
    return Folder(path, Storage.open(Given(path.as_uri())))


def files(folder: Folder) -> list[str]:
    return sorted(str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if not path.is_dir())


async def test_files_and_folders_are_the_owners_alone(folder: Folder, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"1")
    source.chmod(0o644)
    previous = os.umask(0)
    try:
        await folder.storage.put_file("a/b/c", source)
        await folder.storage.put_bytes("a/d", b"2")
    finally:
        os.umask(previous)
    modes = {str(path.relative_to(folder.path)): path.stat().st_mode & 0o777 for path in folder.path.rglob("*")}
    assert modes == {".scratch": 0o700, "a": 0o700, "a/b": 0o700, "a/b/c": 0o600, "a/d": 0o600}
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert source.read_bytes() == b"1"


async def test_deleting_leaves_no_empty_folders(folder: Folder) -> None:
    await folder.storage.put_bytes("tenants/acme/1", b"1")
    await folder.storage.put_bytes("tenants/acme/deeper/2", b"1")
    assert await folder.storage.delete_prefix("tenants/acme") == 2
    assert [path.name for path in folder.path.iterdir()] == [".scratch"]


async def test_puts_and_deletes_at_once_do_not_lose_each_others_folders(folder: Folder) -> None:
    async def turn(number: int) -> None:
        for _ in range(20):
            await folder.storage.put_bytes(f"a/b/{number}", b"1")
            await folder.storage.delete(f"a/b/{number}")
        await folder.storage.put_bytes(f"a/b/{number}", b"2")

    await asyncio.gather(*(turn(number) for number in range(4)))
    assert await keys(folder.storage) == [f"a/b/{number}" for number in range(4)]


async def test_a_reader_sees_one_content_or_the_other(folder: Folder) -> None:
    contents = [bytes([number]) * 3_000_000 for number in range(2)]
    await folder.storage.put_bytes("a", contents[0])

    async def write() -> None:
        for number in range(8):
            await folder.storage.put_bytes("a", contents[number % 2])

    writing = asyncio.create_task(write())
    reads = 0
    while not writing.done():
        assert await folder.storage.get_bytes("a") in contents
        reads += 1
    await writing
    assert reads > 1


async def test_an_object_is_no_folder(folder: Folder) -> None:
    await folder.storage.put_bytes("a/b", b"1")
    for key in ("a", "a/b/c"):
        with pytest.raises(StorageKeyError, match="object"):
            await folder.storage.put_bytes(key, b"2")
    assert files(folder) == ["a/b"]


async def test_a_source_that_is_not_there_is_the_callers_mistake(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await folder.storage.put_file("a", tmp_path / "nothing")
    assert files(folder) == []


async def test_a_folder_that_is_gone_is_unavailable_to_writers(folder: Folder) -> None:
    """A disk that is not mounted: what was written there would be under the mount point, for nobody to find."""
    (folder.path / ".scratch").rmdir()
    folder.path.rmdir()
    folder.path.write_bytes(b"a file in its place")
    with pytest.raises(StorageUnavailableError):
        await folder.storage.put_bytes("a", b"1")
    with pytest.raises(ObjectNotFoundError):
        await folder.storage.get_bytes("a")


_CHILD = """
import asyncio, resource, signal, sys
from pathlib import Path
from tenantry.kernel.storage import Storage, StorageFullError
from tests.kernel.test_storage import Given

store, action, path = sys.argv[1:]
storage = Storage.open(Given(Path(store).as_uri()))

async def main():
    # The kernel itself refuses to let a file grow: as with a quota, without having to fill a disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
    try:
        if action == "put":
            await storage.put_file("old", Path(path))
        else:
            await storage.fetch_to("big", Path(path))
    except StorageFullError as error:
        print(error.status_code, error.headers["Retry-After"], error.detail)
    else:
        sys.exit("nothing was refused")

asyncio.run(main())
"""

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("action", ["put", "fetch"])
async def test_a_full_disk_is_said_and_leaves_nothing_half_written(folder: Folder, tmp_path: Path, action: str) -> None:
    await folder.storage.put_bytes("old", b"as it was")
    await folder.storage.put_bytes("big", bytes(3_000_000))
    work = tmp_path / "work"
    work.mkdir()
    target = work / "file"
    target.write_bytes(bytes(3_000_000) if action == "put" else b"as it was")
    child = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _CHILD, str(folder.path), action, str(target)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.startswith("503 60 There is no room"), child.stdout
    assert await folder.storage.get_bytes("old") == b"as it was"
    assert files(folder) == ["big", "old"]
    assert list((folder.path / ".scratch").iterdir()) == []
    assert [path.name for path in work.iterdir()] == ["file"]
    if action == "fetch":
        assert target.read_bytes() == b"as it was"


_KILLED = """
import asyncio, sys
from pathlib import Path
from tenantry.kernel.storage import Storage
from tests.kernel.test_storage import Given

async def main():
    storage = Storage.open(Given(Path(sys.argv[1]).as_uri()))
    async with storage.scratch() as folder:
        (folder / "dump").write_bytes(b"a tenant's data")
        print(folder, flush=True)
        await storage.put_file("acme", Path(sys.argv[2]))

asyncio.run(main())
"""


@contextmanager
def putting(folder: Folder, pipe: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is in the middle of putting what comes out of a pipe."""
    with ExitStack() as stack:
        command = [sys.executable, "-c", _KILLED, str(folder.path), str(pipe)]
        child = stack.enter_context(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
        stack.callback(child.kill)
        yield child


def opened(pipe: Path, reader: subprocess.Popen[str]) -> FileIO:
    """The writing end, once there is a reader; a reader that has failed would have us wait for ever."""
    while True:
        try:
            descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            assert reader.poll() is None, "the process that was to put a file has ended"
        else:
            os.set_blocking(descriptor, True)
            return FileIO(descriptor, "wb")


def test_a_killed_process_leaves_no_object_and_its_files_go_with_the_next(folder: Folder, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with putting(folder, pipe) as child:
        assert child.stdout is not None
        scratch = Path(child.stdout.readline().strip())
        with opened(pipe, child) as writer:
            for _ in range(40):
                writer.write(bytes(65_536))
            # More than the pipe holds has gone through, so it is on the disk; and the child is alive.
            asyncio.run(folder.storage.put_bytes("globex", b"1"))
            assert (scratch / "dump").exists(), "a scratch folder in use was swept away"
            child.kill()
            child.wait()
    assert asyncio.run(keys(folder.storage)) == ["globex"]
    assert scratch.exists()
    asyncio.run(folder.storage.put_bytes("globex", b"2"))
    assert files(folder) == ["globex"]
    assert list((folder.path / ".scratch").iterdir()) == []
