"""The metrics and the sign of life of a process that serves nothing else: a worker's, a provisioner's.

In a thread of its own: a worker whose event loop a job has taken hold of can still be asked what it is at.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import msgspec
import structlog

from tenantry.kernel.health import HealthRead
from tenantry.kernel.metrics import CONTENT_TYPE, MetricsGuard, render_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tenantry.kernel.settings import Settings

__all__ = ("pulse", "serving_metrics")

_PATIENCE = 5.0
"""Seconds that a client may take to send its request, or to take the answer."""
_JSON = "application/json"
_ALIVE = msgspec.json.encode(HealthRead(status="ok", checks={}))
_STUCK = msgspec.json.encode(HealthRead(status="unavailable", checks={"event-loop": "unavailable"}))

_log = structlog.get_logger(__name__)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, address: tuple[str, int], guard: MetricsGuard, alive: Callable[[], bool]) -> None:
        self.guard = guard
        self.alive = alive
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE
    # Not the interpreter's and its version.
    server_version, sys_version = "tenantry", ""

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/metrics":
                self._tell_metrics()
            case "/health/live":
                # Told to anybody, as the API does: it is one bit, and who asks is a machine without credentials.
                alive = self.server.alive()
                self._answer(200 if alive else 503, _ALIVE if alive else _STUCK, _JSON)
            case _:
                self._answer(404, b"", "text/plain")

    def _tell_metrics(self) -> None:
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
def pulse(patience: float) -> Iterator[Callable[[], bool]]:
    """Whether this thread's event loop has turned within the last `patience` seconds; for any thread to ask."""
    loop = asyncio.get_running_loop()
    turned = time.monotonic()
    timer: asyncio.TimerHandle

    def beat() -> None:
        nonlocal turned, timer
        turned = time.monotonic()
        timer = loop.call_later(min(1.0, patience / 4), beat)

    beat()
    try:
        yield lambda: time.monotonic() - turned <= patience
    finally:
        timer.cancel()


@contextlib.contextmanager
def serving_metrics(settings: Settings, *, alive: Callable[[], bool] = lambda: True) -> Iterator[int]:
    """Serve `GET /metrics` and `GET /health/live` while the block runs, where the settings name a port; the port, or 0.

    `alive` is asked in a thread of the server's, and with False makes the sign of life a 503. A port that is taken is
    logged and costs the metrics alone: the work is not to wait for who watches it.
    """
    if not settings.metrics_port:
        yield 0
        return
    try:
        server = _Server((settings.metrics_host, settings.metrics_port), MetricsGuard(settings), alive)
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
