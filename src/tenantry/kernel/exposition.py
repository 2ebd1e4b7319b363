"""The metrics and the health of a process that serves nothing else: a worker's, a provisioner's.

In a thread of its own: a worker whose event loop a job has taken hold of can still be asked what it is at.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import structlog

from tenantry.kernel.metrics import CONTENT_TYPE, MetricsGuard, render_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tenantry.kernel.settings import Settings

__all__ = ("serving_metrics",)

_PATIENCE = 5.0
"""Seconds that a client may take to send its request, or to take the answer."""
_TURN = 2.0
"""Seconds within which a process' event loop comes round, or it hangs."""

_log = structlog.get_logger(__name__)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(
        self,
        address: tuple[str, int],
        guard: MetricsGuard,
        loop: asyncio.AbstractEventLoop | None,
        is_ready: Callable[[], bool] | None,
    ) -> None:
        self.guard = guard
        self._loop = loop
        self._is_ready = is_ready
        super().__init__(address, _Handler)

    def is_alive(self) -> bool:
        """Whether the event loop turns; waits for it a little."""
        return self._loop is None or self._turns(self._loop)

    def is_ready(self) -> bool:
        """Whether it does its work."""
        return self.is_alive() and (self._is_ready is None or self._is_ready())

    def _turns(self, loop: asyncio.AbstractEventLoop) -> bool:
        turned = threading.Event()
        try:
            loop.call_soon_threadsafe(turned.set)
        except RuntimeError:
            # It is closed: the process ends.
            return False
        return turned.wait(_TURN)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE
    # Not the interpreter's and its version.
    server_version, sys_version = "tenantry", ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        # No token, and nothing told but the status: a kubelet has none.
        if path in {"/health/live", "/health/ready"}:
            well = self.server.is_alive() if path == "/health/live" else self.server.is_ready()
            self._answer(200 if well else 503, b"ok\n" if well else b"unavailable\n", "text/plain")
            return
        if path != "/metrics":
            self._answer(404, b"", "text/plain")
            return
        try:
            admitted = self.server.guard.admits(self.headers.get("authorization"))
        except OSError as error:
            _log.error("the token of the metrics cannot be read", error=repr(error))
            self._answer(503, b"", "text/plain")
            return
        if not admitted:
            self._answer(401, b"", "text/plain", ("WWW-Authenticate", 'Bearer realm="tenantry"'))
            return
        self._answer(200, render_metrics(), f"{CONTENT_TYPE}; charset=utf-8")

    def _answer(self, status: int, body: bytes, media_type: str, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", media_type), ("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Nothing: each scrape would be a line, and not in our form."""


@contextlib.contextmanager
def serving_metrics(
    settings: Settings,
    *,
    loop: asyncio.AbstractEventLoop | None = None,
    is_ready: Callable[[], bool] | None = None,
) -> Iterator[int]:
    """Serve `GET /metrics` while the block runs, where the settings name a port; the port, 0 where they do not.

    `GET /health/live` answers 200 as long as `loop` turns, `/health/ready` where it is ready besides; else 503.
    `is_ready` is asked in another thread.

    A port that is taken is logged and costs the metrics alone: the work is not to wait for who watches it.
    """
    if not settings.metrics_port:
        yield 0
        return
    try:
        server = _Server((settings.metrics_host, settings.metrics_port), MetricsGuard(settings), loop, is_ready)
    except OSError as error:
        _log.error("the metrics cannot be served", port=settings.metrics_port, error=repr(error))
        yield 0
        return
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
