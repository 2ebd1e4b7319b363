"""The metrics of a process that serves nothing else: a worker's, a provisioner's.

In a thread of its own: a worker whose event loop a job has taken hold of can still be asked what it is at.
"""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import structlog

from tenantry.kernel.metrics import CONTENT_TYPE, MetricsGuard, render_metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantry.kernel.settings import Settings

__all__ = ("serving_metrics",)

_PATIENCE = 5.0
"""Seconds that a client may take to send its request, or to take the answer."""

_log = structlog.get_logger(__name__)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, address: tuple[str, int], guard: MetricsGuard) -> None:
        self.guard = guard
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE
    # Not the interpreter's and its version.
    server_version, sys_version = "tenantry", ""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
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
def serving_metrics(settings: Settings) -> Iterator[int]:
    """Serve `GET /metrics` while the block runs, where the settings name a port; the port, 0 where they do not.

    A port that is taken is logged and costs the metrics alone: the work is not to wait for who watches it.
    """
    if not settings.metrics_port:
        yield 0
        return
    try:
        server = _Server((settings.metrics_host, settings.metrics_port), MetricsGuard(settings))
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
