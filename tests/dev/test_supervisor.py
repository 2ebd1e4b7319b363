from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from tenantry.dev.process import DataLock, ServerError, find_free_port, process_alive, server_environment, wait_until
from tenantry.dev.supervisor import (
    Program,
    StopRequested,
    client_host,
    is_loopback,
    listening_error,
    stop_signals,
    wait_until_answered,
)
from tests.dev.support import DEADLINE

SERVER = """
import http.server, os, sys, subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
print("child", child.pid, flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def make(code: str, *arguments: str, log: Path, lock: DataLock | None = None, **environment: str) -> Program:
    return Program(
        "thing",
        [sys.executable, "-c", code, *arguments],
        environment=server_environment() | environment,
        log=log,
        lock=lock,
    )


def test_a_program_runs_with_its_environment_and_stops_in_order(tmp_path: Path) -> None:
    code = (
        "import os, signal, time, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit(3)))\n"
        "print(os.environ['WORD'], os.environ.get('HOME'), flush=True); time.sleep(1000)"
    )
    program = make(code, log=tmp_path / "log", WORD="hello")
    with pytest.raises(ServerError, match="the thing is not running"):
        _ = program.pid
    program.start()
    assert wait_until(lambda: "hello None" in program.log_tail(), DEADLINE)
    pid = program.pid
    assert program.ended() is None
    program.stop()
    assert not process_alive(pid)
    assert (tmp_path / "log").read_text().splitlines()[-1] == "bye"
    program.stop()


def test_what_a_killed_program_leaves_is_swept_up(tmp_path: Path) -> None:
    port = find_free_port()
    lock = DataLock(tmp_path / "lock", tmp_path)
    lock.acquire(0)
    program = make(SERVER, str(port), log=tmp_path / "log", lock=lock)
    program.start()
    wait_until_answered(program, "127.0.0.1", port, "/health", DEADLINE)
    child = int(program.log_tail().split()[1])
    os.kill(program.pid, signal.SIGKILL)
    assert wait_until(lambda: program.ended() is not None, DEADLINE)
    assert program.ended() == 128 + signal.SIGKILL
    assert process_alive(child)
    program.stop()
    assert wait_until(lambda: not process_alive(child) or Path(f"/proc/{child}/cmdline").read_bytes() == b"", DEADLINE)
    program.start()
    wait_until_answered(program, "127.0.0.1", port, "/health", DEADLINE)
    program.stop()
    lock.release()


def test_a_program_that_ends_or_never_answers_is_an_error_with_its_log(tmp_path: Path) -> None:
    port = find_free_port()
    program = make("print('no such luck', flush=True); raise SystemExit(7)", log=tmp_path / "log")
    program.start()
    with pytest.raises(ServerError, match=r"the thing ended with exit code 7 while starting.*\nno such luck"):
        wait_until_answered(program, "127.0.0.1", port, "/health", DEADLINE)
    program.stop()
    program = make(SERVER, str(port), log=tmp_path / "log")
    program.start()
    try:
        wait_until_answered(program, "127.0.0.1", port, "/health", DEADLINE)
        with pytest.raises(ServerError, match="did not answer /nowhere with 200"):
            wait_until_answered(program, "127.0.0.1", port, "/nowhere", 0.2)
    finally:
        program.stop()


def test_a_big_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenantry.dev.supervisor.LOG_LIMIT", 3)
    log = tmp_path / "api.log"
    log.write_text("old lines\n")
    program = make("print('new', flush=True)", log=log)
    program.start()
    assert wait_until(lambda: program.ended() is not None, DEADLINE)
    program.stop()
    assert log.read_text() == "new\n"
    assert (tmp_path / "api.log.old").read_text() == "old lines\n"


def test_why_nothing_can_listen_is_told() -> None:
    port = find_free_port()
    assert listening_error("127.0.0.1", port) is None
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert listening_error("127.0.0.1", port) == "Address already in use"
        assert listening_error("0.0.0.0", port) == "Address already in use"
    assert listening_error("192.0.2.1", port) == "Cannot assign requested address"
    assert "is no address of this machine" in str(listening_error("nowhere.invalid", port))


def test_loopback_and_the_address_for_clients() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.1.2.3", "::1", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "10.0.0.1", "tenantry.example"]))
    assert [client_host(host) for host in ("0.0.0.0", "::", "::1", "127.0.0.1", "localhost")] == [
        "127.0.0.1",
        "[::1]",
        "[::1]",
        "127.0.0.1",
        "localhost",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_stop_is_raised_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_signals() as deaf:
        with pytest.raises(StopRequested, match=number.name):
            signal.raise_signal(number)
        signal.raise_signal(number)
        deaf()
    assert signal.getsignal(number) is before
    with stop_signals() as deaf:
        deaf()
        signal.raise_signal(number)
