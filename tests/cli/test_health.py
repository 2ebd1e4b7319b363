from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cli.support import answer, run


@contextmanager
def _answering(status: int, host: str = "127.0.0.1") -> Iterator[int]:
    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health/live" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with Server((host, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def _silent() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed() -> Iterator[int]:
    """A port on which nothing listens, and that nobody else is given."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (404, 1)])
@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "localhost"])
def test_an_api_is_asked_on_its_port(host: str, status: int, code: int) -> None:
    with _answering(status) as port:
        done = run("health", "--json", env={"TENANTRY_HOST": host, "TENANTRY_PORT": str(port)})
    said = answer(done, code)
    assert said["status"] == ("ok" if code == 0 else "unavailable")
    assert said["detail"] == f"HTTP {status}"
    assert said["address"].endswith(f":{port}/health/live")


def test_one_that_listens_on_every_address_of_version_six_is_asked_there() -> None:
    if not socket.has_ipv6:
        pytest.skip("there is no IPv6 here")
    try:
        with _answering(200, "::1") as port:
            done = run("health", "--json", env={"TENANTRY_HOST": "::", "TENANTRY_PORT": str(port)})
    except OSError as error:
        pytest.skip(f"there is no IPv6 here: {error}")
    assert answer(done)["address"] == f"http://[::1]:{port}/health/live"


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_a_worker_is_asked_where_it_tells_its_metrics(closed: int, status: int, code: int) -> None:
    with _answering(status) as port:
        done = run("health", "--quiet", env={"TENANTRY_PORT": str(closed), "TENANTRY_METRICS_PORT": str(port)})
    assert done.exit_code == code
    assert done.stdout == ""
    assert (f":{port}/health/live is not alive: HTTP 503" in done.stderr) is bool(code)


def test_an_api_that_hangs_is_not_saved_by_another_process(closed: int) -> None:
    with _silent() as port, _answering(200) as other:
        env = {"TENANTRY_PORT": str(port), "TENANTRY_METRICS_PORT": str(other)}
        done = run("health", "--timeout", "0.1", env=env)
    assert done.exit_code == 1
    assert f":{port}/health/live is not alive: timed out" in done.stderr


def test_where_nothing_runs_nothing_lives(closed: int) -> None:
    done = run("health", env={"TENANTRY_PORT": str(closed)})
    assert done.exit_code == 1
    assert "is not alive: Connection refused" in done.stderr
    assert done.stdout == ""
