from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import redis

from tenantry.dev.process import AlreadyRunning, ServerError, process_alive, wait_until
from tenantry.dev.valkey import find_valkey_server
from tests.dev.support import DEADLINE, make_valkey, program, refuses, say, valkey_client

START = """
    import signal, sys
    from pathlib import Path
    from tenantry.dev.valkey import EmbeddedValkey

    server = EmbeddedValkey(Path(sys.argv[1]), delete_with_parent=len(sys.argv) > 2)
    server.start()
    print(server.pid, server.port, flush=True)
    signal.pause()
"""


def test_a_second_start_keeps_data_port_and_password(home: Path) -> None:
    with make_valkey(home) as first:
        address = first.url()
        with valkey_client(address) as client:
            client.set("kept", "42")
    assert refuses(first.port)
    with make_valkey(home) as second:
        assert second.url() == address == make_valkey(home).url()
        with valkey_client(address) as client:
            assert client.get("kept") == "42"


def test_without_persistence_a_restart_is_empty(home: Path) -> None:
    server = make_valkey(home, persistent=False)
    with server, valkey_client(server.url()) as client:
        client.set("lost", "42")
    with server, valkey_client(server.url()) as client:
        assert client.get("lost") is None


def test_keys_are_never_evicted_and_strangers_never_heard(home: Path) -> None:
    with make_valkey(home) as server:
        with valkey_client(server.url()) as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("bind") == {"bind": "127.0.0.1"}
        with valkey_client(f"redis://127.0.0.1:{server.port}/0") as client, pytest.raises(redis.AuthenticationError):
            client.ping()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_password_is_in_private_files_only(home: Path) -> None:
    with make_valkey(home) as server:
        for file in ("cmdline", "environ"):
            assert server.password not in Path(f"/proc/{server.pid}/{file}").read_text()
        for path in (server.password_file, server.data_dir / "valkey.conf"):
            assert path.stat().st_mode & 0o777 == 0o600


def test_a_killed_server_starts_again_with_what_was_synced(home: Path) -> None:
    server = make_valkey(home)
    server.start()
    try:
        with valkey_client(server.url()) as client:
            client.config_set("appendfsync", "always")
            client.set("kept", "42")
        server.kill()
        assert refuses(server.port)
        server.start()
        with valkey_client(server.url()) as client:
            assert client.get("kept") == "42"
        os.kill(server.pid, signal.SIGKILL)
        assert server.wait() == 128 + signal.SIGKILL
        server.start()
        with valkey_client(server.url()) as client:
            assert client.get("kept") == "42"
    finally:
        server.stop()


def test_the_server_dies_with_its_killed_program(home: Path) -> None:
    with program(START, home / "valkey") as parent:
        pid, port = map(int, say(parent).split())
        assert not refuses(port)
        parent.kill()
        assert wait_until(lambda: refuses(port) and not process_alive(pid), DEADLINE)


@pytest.mark.parametrize("attempt", range(5))
def test_a_killed_test_run_leaves_no_files(home: Path, attempt: int) -> None:
    # More than once: a Valkey is gone within a millisecond, at times before the kernel has buried its parent.
    folder = home / "run"
    with program(START, folder / "valkey", "delete") as parent:
        say(parent)
        parent.kill()
        assert wait_until(lambda: not folder.exists(), DEADLINE)


def test_a_server_that_is_stopped_in_order_keeps_its_files(home: Path) -> None:
    server = make_valkey(home, delete_with_parent=True)
    for end in (server.stop, server.kill, server.stop):
        server.start()
        end()
        assert server.data_dir.exists()


def test_one_directory_serves_one_server(home: Path) -> None:
    with program(START, home / "valkey") as parent:
        pid, port = map(int, say(parent).split())
        with pytest.raises(AlreadyRunning) as caught:
            make_valkey(home).start()
        assert caught.value.pid == pid
        assert make_valkey(home).running_elsewhere() == pid
        assert not refuses(port)
        parent.kill()
        assert wait_until(lambda: not process_alive(pid), DEADLINE)


def test_a_folder_with_blanks_and_quotes_is_fine(home: Path) -> None:
    with make_valkey(home / 'my "own" data') as server, valkey_client(server.url()) as client:
        assert client.ping() is True


def test_a_program_that_cannot_run_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENANTRY_VALKEY_SERVER", str(home / "nothing"))
    with pytest.raises(ServerError, match="TENANTRY_VALKEY_SERVER"):
        find_valkey_server()
    broken = home / "broken"
    broken.write_text("#!/bin/sh\necho what a pity >&2\nexit 7\n")
    broken.chmod(0o755)
    with pytest.raises(ServerError, match="what a pity"):
        make_valkey(home, program=broken).start()
