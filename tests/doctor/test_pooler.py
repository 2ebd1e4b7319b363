"""Two organizations on one backend: directly, through PgBouncer in each of its modes, and through what leaks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.doctor.support import Patient, codes, examine
from tests.isolation.test_pgbouncer import PGBOUNCER, _open_pgbouncer, _version

needs_pgbouncer = pytest.mark.skipif(PGBOUNCER is None, reason="there is no pgbouncer on this machine")

WITHOUT = {"TENANTRY_DATABASE_PREPARED_STATEMENTS": "false"}


def look(patient: Patient, url: str, code: int, **env: str) -> dict[str, dict[str, Any]]:
    return codes(examine(patient, "--only", "pooler", code=code, TENANTRY_DATABASE_URL=url, **env))


@contextmanager
def beside(make: Callable[[], Any]) -> Iterator[str]:
    """What an asynchronous context gives, on a loop of its own: the command has this thread's."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def wait(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    async def close(context: Any) -> None:
        await context.__aexit__(None, None, None)

    async def enter(context: Any) -> str:
        return str(await context.__aenter__())

    try:
        context = make()
        url = wait(enter(context))
        try:
            yield url
        finally:
            wait(close(context))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_without_a_pooler_one_backend_serves_both_and_nothing_is_left(patient: Patient) -> None:
    found = look(patient, patient.app_url, 0)
    assert found.keys() == {"pooler.clean"}
    assert "without a pooler" in found["pooler.clean"]["seen"]


@needs_pgbouncer
def test_transaction_mode_is_clean(patient: Patient) -> None:
    with beside(lambda: _open_pgbouncer(patient.app_url)) as url:
        found = look(patient, url, 0, **WITHOUT)
        assert found.keys() == {"pooler.clean"}
        assert "on 1 backends, through a pooler" in found["pooler.clean"]["seen"]


@needs_pgbouncer
def test_prepared_statements_that_the_pooler_loses_are_found(patient: Patient) -> None:
    if _version() >= (1, 21):
        pytest.skip("PgBouncer knows prepared statements from 1.21 on")
    with beside(lambda: _open_pgbouncer(patient.app_url)) as url:
        found = look(patient, url, 1)
        assert found["pooler.prepared-statements"]["severity"] == "critical"
        assert "TENANTRY_DATABASE_PREPARED_STATEMENTS=false" in found["pooler.prepared-statements"]["remedy"]


@needs_pgbouncer
def test_statement_mode_is_found(patient: Patient) -> None:
    with beside(lambda: _open_pgbouncer(patient.app_url, settings="pool_mode = statement")) as url:
        found = look(patient, url, 1, **WITHOUT)
        assert found["pooler.transactions"]["severity"] == "critical"
        assert "statement pooling mode" in found["pooler.transactions"]["seen"]


@needs_pgbouncer
def test_session_mode_is_found(patient: Patient) -> None:
    settings = "pool_mode = session\ndefault_pool_size = 20"
    with beside(lambda: _open_pgbouncer(patient.app_url, settings=settings)) as url:
        found = look(patient, url, 0, **WITHOUT)
        assert {name: one["severity"] for name, one in found.items()} == {"pooler.session-mode": "note"}


@needs_pgbouncer
def test_session_mode_with_too_few_backends_is_found(patient: Patient) -> None:
    with beside(lambda: _open_pgbouncer(patient.app_url, settings="pool_mode = session")) as url:
        found = look(patient, url, 1, **WITHOUT, TENANTRY_DATABASE_CONNECT_TIMEOUT="1")
        assert found["pooler.waited"]["severity"] == "warning"


@contextmanager
def leaking(url: str, rewrite: Callable[[bytes], bytes]) -> Iterator[str]:
    """Stands in for a pooler that gets it wrong: passes everything on, the client's words changed on the way."""
    parts = urlsplit(url)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(parts.hostname, parts.port)

        async def copy(
            source: asyncio.StreamReader, target: asyncio.StreamWriter, change: Callable[[bytes], bytes]
        ) -> None:
            try:
                while data := await source.read(65536):
                    target.write(change(data))
                    await target.drain()
            except OSError:
                pass
            finally:
                target.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(copy(reader, back, rewrite))
            group.create_task(copy(there, writer, lambda data: data))

    class Server:
        async def __aenter__(self) -> str:
            self._server = await asyncio.start_server(serve, "127.0.0.1", 0)
            port = self._server.sockets[0].getsockname()[1]
            netloc = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}"
            return urlunsplit((parts.scheme, netloc, parts.path, parts.query, ""))

        async def __aexit__(self, *_: object) -> None:
            self._server.close()
            await self._server.wait_closed()

    with beside(Server) as address:
        yield address


@pytest.mark.parametrize(
    ("said", "meant", "seen"),
    [
        # Of the same length, since messages say how long they are.
        (b"SET LOCAL ROLE", b"SET ROLE      ", "the role 't_"),
        (b"SET LOCAL search_path", b"SET search_path      ", "the search path"),
        (b"SET LOCAL statement_timeout", b"SET statement_timeout      ", "statement_timeout = 7919"),
        (b"SET LOCAL lock_timeout TO 1987", b"LISTEN x                      ", "lock_timeout was '0'"),
        (b"SET LOCAL lock_timeout TO 1987", b"LISTEN x                      ", "channels that are listened to"),
        (b"BEGIN READ ONLY; SET LOCAL ROLE", b"BEGIN          ; SET LOCAL ROLE", "read_only was 'off'"),
    ],
)
def test_what_a_leaking_pooler_leaves_behind_is_found(patient: Patient, said: bytes, meant: bytes, seen: str) -> None:
    assert len(said) == len(meant)
    with leaking(patient.app_url, lambda data: data.replace(said, meant)) as url:
        result = examine(patient, "--only", "pooler", code=1, TENANTRY_DATABASE_URL=url)
    findings = [finding for finding in result["checks"][0]["findings"] if finding["code"] == "pooler.leak"]
    assert findings
    assert {finding["severity"] for finding in findings} == {"critical"}
    assert any(seen in finding["seen"] for finding in findings), findings


def test_a_transaction_that_is_not_ended_is_found(patient: Patient) -> None:
    """The next BEGIN is then inside of it."""
    with leaking(patient.app_url, lambda data: data.replace(b"COMMIT\0", b"SELECT\0")) as url:
        found = look(patient, url, 1)
    assert found["pooler.transactions"]["severity"] == "critical"


def test_fewer_than_two_organizations_are_nothing_to_try_with(patient: Patient) -> None:
    with patient.ailing(
        ["UPDATE platform.tenant SET status = 'suspended' WHERE slug = 'acme'"],
        ["UPDATE platform.tenant SET status = 'active'"],
    ):
        assert look(patient, patient.app_url, 0).keys() == {"pooler.too-few"}
