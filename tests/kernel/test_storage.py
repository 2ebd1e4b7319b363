"""The storage keeps its promises in a folder and in a bucket alike; the bucket is moto's, over HTTP."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import obstore
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from tenantry.kernel.errors import UnavailableException
from tenantry.kernel.settings import Settings
from tenantry.kernel.storage import (
    ObjectNotFoundError,
    Storage,
    StorageFullError,
    StorageKeyError,
    StorageSettings,
    StorageUnavailableError,
)

BUCKET = "archives"
_prefixes = itertools.count(1)


@dataclass(frozen=True)
class Given:
    """The settings that the storage reads."""

    storage_address: str
    storage_s3_endpoint: str | None = None
    storage_s3_region: str | None = None
    storage_s3_access_key_id: str | None = None
    storage_s3_secret_access_key: SecretStr | None = None


def bucket_settings(endpoint: str, bucket: str = BUCKET) -> Given:
    return Given(
        storage_address=f"s3://{bucket}/deployment/{next(_prefixes)}",
        storage_s3_endpoint=endpoint,
        storage_s3_region="us-east-1",
        storage_s3_access_key_id="testing",
        storage_s3_secret_access_key=SecretStr("a secret key"),
    )


@contextmanager
def running_moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        httpx.put(f"{endpoint}/{BUCKET}").raise_for_status()
        yield endpoint
    finally:
        server.stop()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with running_moto() as address:
        yield address


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return Storage.open(Given((tmp_path / "store").as_uri()))
    return Storage.open(bucket_settings(request.getfixturevalue("endpoint")))


async def keys(storage: Storage, prefix: str = "") -> list[str]:
    return sorted([info.key async for info in storage.list(prefix)])


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_the_settings_are_what_the_storage_reads(tmp_path: Path) -> None:
    settings: StorageSettings = Settings(home=tmp_path)
    Storage.open(settings)
    assert (tmp_path / "storage").is_dir()


async def test_what_was_put_is_got(storage: Storage) -> None:
    await storage.put_bytes("tenants/acme/a.zip", b"\x00\xffacme")
    assert await storage.get_bytes("tenants/acme/a.zip") == b"\x00\xffacme"
    info = await storage.head("tenants/acme/a.zip")
    assert info is not None
    assert (info.key, info.size) == ("tenants/acme/a.zip", 6)
    await storage.put_bytes("tenants/acme/a.zip", b"")
    assert await storage.get_bytes("tenants/acme/a.zip") == b""
    changed = await storage.head("tenants/acme/a.zip")
    assert changed is not None
    assert changed.etag != info.etag
    assert changed.modified.tzinfo is not None


async def test_a_large_file_goes_through_in_pieces(storage: Storage, tmp_path: Path) -> None:
    """Larger than one part of a bucket's upload, and than one piece of the stream."""
    content = bytes(range(256)) * 4096 * 20 + b"the end"
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content)
    await storage.put_file("big", source)
    pieces = [piece async for piece in storage.stream("big")]
    assert len(pieces) > 1
    assert b"".join(pieces) == content
    target.write_bytes(b"something older")
    await storage.fetch_to("big", target)
    assert target.read_bytes() == content
    assert target.stat().st_mode & 0o777 == 0o600
    assert files_in(tmp_path) == ["source", "target"]


async def test_an_object_that_is_not_there_is_said_to_be_missing(storage: Storage, tmp_path: Path) -> None:
    await storage.put_bytes("folder/object", b"1")
    for key in ("nothing", "folder/nothing", "folder", "folder/object/below"):
        assert await storage.head(key) is None
        with pytest.raises(ObjectNotFoundError, match=key):
            await storage.get_bytes(key)
        with pytest.raises(ObjectNotFoundError):
            await storage.fetch_to(key, tmp_path / "target")
        await storage.delete(key)
    assert await keys(storage) == ["folder/object"]
    assert files_in(tmp_path) == []


async def test_deleting_can_be_repeated(storage: Storage) -> None:
    await storage.put_bytes("a/b", b"1")
    for _ in range(2):
        await storage.delete("a/b")
        assert await keys(storage) == []


async def test_one_tenants_prefix_is_not_the_beginning_of_anothers(storage: Storage) -> None:
    for key in ("t/acme/1", "t/acme/x/2", "t/acme2/1", "t/acme.zip"):
        await storage.put_bytes(key, b"1")
    assert await keys(storage, "t/acme") == ["t/acme/1", "t/acme/x/2"]
    assert await storage.delete_prefix("t/acme") == 2
    assert await storage.delete_prefix("t/acme/") == 0
    assert await keys(storage) == ["t/acme.zip", "t/acme2/1"]
    for everything in ("", "/"):
        with pytest.raises(StorageKeyError):
            await storage.delete_prefix(everything)


async def put_behind_its_back(storage: Storage, key: str, data: bytes) -> None:
    """As somebody does with a tool of their own, who does not care what keys we take."""
    if storage._folder is not None:
        target = storage._folder / key
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    else:
        await obstore.put_async(storage._store, key, data)


STRANGE = ["copy of a.zip", "übersicht.zip", "100%.zip", "a%20b.zip", ".hidden", "sub/.x/y", "a+b&c=d.zip"]


async def test_what_somebody_else_has_put_into_a_folder_is_not_listed_but_deleted_with_it(storage: Storage) -> None:
    """Names that are no keys of ours: a copy of a tenant's archive is the tenant's data as well."""
    await storage.put_bytes("tenants/acme/a.zip", b"acme")
    await storage.put_bytes("tenants/globex/a.zip", b"globex")
    for name in STRANGE:
        await put_behind_its_back(storage, f"tenants/acme/{name}", b"acme")
    await put_behind_its_back(storage, "tenants/globex/copy of a.zip", b"globex")
    assert await keys(storage, "tenants/acme") == ["tenants/acme/a.zip"]
    assert await storage.measure("tenants/acme") == (len(STRANGE) + 1, 4 * (len(STRANGE) + 1))
    assert await storage.delete_prefix("tenants/acme") == len(STRANGE) + 1
    assert await storage.measure("tenants/acme") == (0, 0)
    assert await storage.measure("tenants/globex") == (2, 12)
    assert await storage.measure("tenants/nobody") == (0, 0)


async def test_no_prefix_measures_or_deletes_what_belongs_to_nobody(storage: Storage) -> None:
    async with storage.scratch() as folder:
        (folder / "file").write_bytes(b"being written")
        for prefix in ("", "/", ".scratch", "a/../b", "../x"):
            with pytest.raises(StorageKeyError):
                await storage.measure(prefix)
            with pytest.raises(StorageKeyError):
                await storage.delete_prefix(prefix)
        assert (folder / "file").exists()


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "..", "a/../b", ".a", "a/.scratch", "a b", "a\n", "ä", "a\\b", "a#1", "x" * 256]
)
async def test_a_key_that_could_lead_elsewhere_is_refused(storage: Storage, key: str, tmp_path: Path) -> None:
    with pytest.raises(StorageKeyError):
        await storage.put_bytes(key, b"1")
    with pytest.raises(StorageKeyError):
        await storage.get_bytes(key)
    with pytest.raises(StorageKeyError):
        await storage.delete(key)
    with pytest.raises(StorageKeyError):
        await storage.fetch_to(key, tmp_path / "target")
    assert await keys(storage) == []


@given(st.text(alphabet="ab./-_", min_size=1, max_size=12))
def test_no_key_leads_out_of_the_folder(key: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        store = Path(name, "x", "store")
        storage = Storage.open(Given(store.as_uri()))
        try:
            asyncio.run(storage.put_bytes(key, b"1"))
        except StorageKeyError:
            pass
        else:
            assert (store / key).read_bytes() == b"1"
        assert list(Path(name).iterdir()) == [store.parent]
        assert list(store.parent.iterdir()) == [store]


async def test_a_scratch_folder_is_private_and_gone_afterwards(storage: Storage) -> None:
    async with storage.scratch() as one, storage.scratch() as two:
        assert one != two
        assert one.stat().st_mode & 0o777 == 0o700
        (one / "file").write_bytes(b"a tenant's data")
        assert await keys(storage) == []
    assert not one.exists()
    assert not two.exists()


async def test_a_bucket_that_is_away_is_unavailable(tmp_path: Path) -> None:
    with running_moto() as address:
        storage = Storage.open(bucket_settings(address))
        await storage.put_bytes("a", b"1")
    with pytest.raises(StorageUnavailableError) as raised:
        await storage.get_bytes("a")
    error: UnavailableException = raised.value
    assert (error.status_code, error.headers) == (503, {"Retry-After": "5"})
    assert "secret" not in repr(error) + str(error.detail)
    with pytest.raises(StorageUnavailableError):
        await storage.head("a")
    with pytest.raises(StorageUnavailableError):
        await storage.put_bytes("a", b"2")
    with pytest.raises(StorageUnavailableError):
        await keys(storage)
    with pytest.raises(StorageUnavailableError):
        await storage.fetch_to("a", tmp_path / "target")
    assert files_in(tmp_path) == []


async def test_a_bucket_that_was_never_made_is_no_empty_one(endpoint: str) -> None:
    """Otherwise an archive would be taken for deleted, since the storage's address has a typing error."""
    storage = Storage.open(bucket_settings(endpoint, "another"))
    with pytest.raises(StorageUnavailableError, match="not there"):
        await storage.put_bytes("a", b"1")
    with pytest.raises(StorageUnavailableError):
        await storage.get_bytes("a")
    with pytest.raises(StorageUnavailableError):
        await storage.head("a")
    with pytest.raises(StorageUnavailableError):
        await storage.delete("a")
    with pytest.raises(StorageUnavailableError):
        await keys(storage)


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server that says the same to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_a_bucket_without_room_is_full_and_not_away() -> None:
    with answering(507, b"<Error><Code>XMinioStorageFull</Code></Error>") as address:
        storage = Storage.open(bucket_settings(address))
        with pytest.raises(StorageFullError, match="full"):
            await storage.put_bytes("a", b"1")


async def test_a_bucket_that_refuses_us_is_unavailable() -> None:
    with answering(403, b"<Error><Code>AccessDenied</Code></Error>") as address:
        storage = Storage.open(bucket_settings(address))
        with pytest.raises(StorageUnavailableError, match="refuses"):
            await storage.put_bytes("a", b"1")


def test_an_address_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="ftp://"):
        Storage.open(Given("ftp://somewhere/else"))
