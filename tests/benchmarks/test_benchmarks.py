"""That the benchmark runs, and that it cannot call a failure a result."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from benchmarks import report
from benchmarks.__main__ import main
from benchmarks.load import LoadFailed, run_load, write_requests
from benchmarks.measure import COMPARISONS, TARGETS, Burst, compare, summarize
from benchmarks.profiling import part_of, share


@contextmanager
def answering(*statuses: int) -> Iterator[int]:
    """A server that answers with these statuses in turn; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        count = 0

        def do_GET(self) -> None:
            status = statuses[Handler.count % len(statuses)]
            Handler.count += 1
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            """Not to the tests' output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(port: int, folder: Path) -> int:
    requests = write_requests(folder / "requests", [("/one", None), ("/two", "a.b.c")], host="localhost")
    return run_load("python", port, requests, connections=2, seconds=1, seed=1).requests


def test_every_answer_counts(tmp_path: Path) -> None:
    with answering(200, 201) as port:
        assert send(port, tmp_path) > 10


@pytest.mark.parametrize("status", [304, 401, 404, 503])
def test_one_request_that_is_refused_makes_the_run_fail(tmp_path: Path, status: int) -> None:
    with answering(200, 200, 200, status) as port, pytest.raises(LoadFailed, match=r", [1-9]\d* were refused"):
        send(port, tmp_path)


def test_server_that_is_not_there_makes_the_run_fail(tmp_path: Path) -> None:
    with answering(200) as port:
        pass
    with pytest.raises(LoadFailed):
        send(port, tmp_path)


def burst(rate: float, cpu: float = 100.0) -> Burst:
    return Burst(rate=rate, p50=1.0, p99=2.0, server_cpu=cpu, postgres_cpu=cpu, requests=10)


def test_ratio_is_taken_within_each_round() -> None:
    """The machine became ten times slower after the first round: each round's ratio is one half all the same."""
    rounds = {target.name: [burst(1000.0), burst(100.0), burst(100.0)] for target in TARGETS}
    rounds["product.one"] = [burst(500.0, 200.0), burst(50.0, 200.0), burst(50.0, 200.0)]
    ratio = next(ratio for ratio in compare(rounds) if ratio.name == "a.one")
    assert (ratio.rate, ratio.lower, ratio.upper) == (0.5, 0.5, 0.5)
    assert (ratio.server_cpu, ratio.total_cpu) == (0.5, 0.5)
    assert ratio.reached is False
    assert next(line.rate for line in summarize(rounds) if line.target == "product.one") == 50.0


def test_every_comparison_is_of_targets_that_are_measured() -> None:
    names = {target.name for target in TARGETS}
    assert {name for comparison in COMPARISONS for name in (comparison.of, comparison.to)} <= names


def test_sample_belongs_to_the_innermost_frame_that_has_a_part() -> None:
    places: dict[str, Any] = {}

    def note(name: str) -> None:
        places[name] = __import__("sys")._getframe(1)

    scope: dict[str, Any] = {"note": note, "places": places}
    exec(compile("def f():\n note('scope')", "/x/tenantry/tenancy/scope.py", "exec"), scope)
    exec(compile("def g():\n f()\n note('session')", "/x/sqlalchemy/orm/session.py", "exec"), scope)
    exec(compile("def h():\n note('library')", "/x/uuid.py", "exec"), scope)
    exec(compile("def k():\n h()", "/x/asyncpg/connection.py", "exec"), scope)
    scope["g"]()
    scope["k"]()
    assert part_of(places["scope"]) == "scope"
    assert part_of(places["session"]) == "SQLAlchemy"
    assert part_of(places["library"]) == "driver and protocol"
    assert part_of(None) == "other"
    assert share({"scope": 1, "SQLAlchemy": 3}, "scope") == 0.25


@pytest.mark.slow
def test_short_run_measures_every_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    arguments = ["--tenants", "5", "--rounds", "1", "--seconds", "1", "--connections", "2", "--client", "python"]
    ran = CliRunner().invoke(main, [*arguments, "--quiet", "--json"], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    result = msgspec.json.decode(ran.stdout)
    assert {line["target"] for line in result["targets"]} == {target.name for target in TARGETS}
    assert all(line["requests"] > 0 and line["server_cpu"] > 0 for line in result["targets"])
    assert {ratio["name"] for ratio in result["ratios"]} == {comparison.name for comparison in COMPARISONS}
    for profile in result["profiles"]:
        assert sum(profile["parts"].values()) == pytest.approx(1)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".png"]
