from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tenantry.dev.postgres import EmbeddedPostgres, find_postgres_binaries
from tenantry.dev.process import (
    AlreadyRunning,
    GuardedProcess,
    ServerError,
    choose_account,
    find_free_port,
    process_alive,
    wait_until,
)
from tests.dev.support import DEADLINE, make_postgres, program, query, refuses, say
from tests.servers import temporary_folder

START = """
    import signal, sys
    from pathlib import Path
    from tenantry.dev.postgres import EmbeddedPostgres

    server = EmbeddedPostgres(Path(sys.argv[1]), sync=False, delete_with_parent=len(sys.argv) > 2)
    server.start()
    print(server.pid, server.port, flush=True)
    signal.pause()
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has accounts to choose from")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """One running server for the tests that only look."""
    folder = temporary_folder("tenantry-dev-")
    with make_postgres(folder, settings={"work_mem": "5MB"}, max_connections=33) as running:
        yield running
    shutil.rmtree(folder)


def test_a_second_start_keeps_data_port_and_password(home: Path) -> None:
    with make_postgres(home) as first:
        query(first.url(), "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (42) RETURNING n")
        address = first.url()
    assert refuses(first.port)
    assert make_postgres(home).running_elsewhere() is None
    with make_postgres(home) as second:
        assert second.url() == address
        assert query(address, "SELECT n FROM kept") == 42


def test_the_address_of_a_server_is_known_to_other_programs(server: EmbeddedPostgres) -> None:
    other = make_postgres(server.data_dir.parent)
    assert other.url() == server.url()
    assert other.url("x", "who", "p@ss/word") == f"postgresql://who:p%40ss%2Fword@127.0.0.1:{server.port}/x"
    assert other.running_elsewhere() == server.pid


def test_the_address_of_a_server_that_never_ran_is_an_error(home: Path) -> None:
    with pytest.raises(ServerError, match="never started"):
        make_postgres(home).url()


def test_it_speaks_utf8_sorts_by_code_point_and_lives_in_utc(server: EmbeddedPostgres) -> None:
    for name, value in {
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
        "max_connections": "33",
        "max_locks_per_transaction": "256",
        "password_encryption": "scram-sha-256",
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": str(server.data_dir),
        "work_mem": "5MB",
    }.items():
        assert query(server.url(), f"SHOW {name}") == value
    assert query(server.url(), "SELECT lower('ÄÖ') = 'äö' AND 'Z' < 'a'")


def test_durability_is_on_unless_a_test_turns_it_off(home: Path) -> None:
    with EmbeddedPostgres(home / "postgres", sync=False) as server:
        assert query(server.url(), "SHOW fsync") == "on"
        assert query(server.url(), "SHOW full_page_writes") == "on"


def test_a_wrong_password_is_refused(server: EmbeddedPostgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        query(server.url(password="wrong"), "SELECT 1")


@on_linux
def test_no_secret_is_in_arguments_or_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENANTRY_DATABASE_OWNER_URL", "postgresql://owner:hunter2@example.org/db")
    with make_postgres(home) as server:
        for file in ("cmdline", "environ"):
            text = Path(f"/proc/{server.pid}/{file}").read_text()
            assert server.password not in text
            assert "hunter2" not in text
        assert server.password_file.stat().st_mode & 0o777 == 0o600


def test_a_killed_server_recovers_on_the_next_start(home: Path) -> None:
    server = make_postgres(home)
    server.start()
    try:
        query(server.url(), "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (42) RETURNING n")
        server.kill()
        assert refuses(server.port)
        assert not server.running
        server.start()
        assert query(server.url(), "SELECT n FROM kept") == 42
    finally:
        server.stop()


def test_a_server_killed_by_somebody_else_is_noticed_and_starts_again(home: Path) -> None:
    server = make_postgres(home)
    server.start()
    try:
        query(server.url(), "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (42) RETURNING n")
        os.kill(server.pid, signal.SIGKILL)
        assert server.wait() == 128 + signal.SIGKILL
        server.start()
        assert query(server.url(), "SELECT n FROM kept") == 42
    finally:
        server.stop()


def test_the_server_dies_with_its_killed_program(home: Path) -> None:
    with program(START, home / "postgres") as parent:
        pid, port = map(int, say(parent).split())
        assert not refuses(port)
        parent.kill()
        assert wait_until(lambda: refuses(port) and not process_alive(pid), DEADLINE)
    # It was stopped in order, and its data is there for the next start, which needs not wait for a human.
    with make_postgres(home) as server:
        assert query(server.url(), "SELECT 1") == 1


def test_a_start_right_after_the_kill_waits_for_the_dying_server(home: Path) -> None:
    with program(START, home / "postgres") as parent:
        say(parent)
        parent.kill()
        parent.wait()
        with make_postgres(home) as server:
            assert query(server.url(), "SELECT 1") == 1


def test_a_killed_test_run_leaves_no_files(home: Path) -> None:
    folder = home / "run"
    with program(START, folder / "postgres", "delete") as parent:
        say(parent)
        assert folder.exists()
        parent.kill()
        assert wait_until(lambda: not folder.exists(), DEADLINE)


@on_linux
def test_the_server_dies_with_its_killed_guard(home: Path) -> None:
    server = make_postgres(home)
    server.start()
    try:
        pid, port = server.pid, server.port
        guard = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        os.kill(guard, signal.SIGKILL)
        assert wait_until(lambda: refuses(port) and not process_alive(pid), DEADLINE)
    finally:
        server.stop()


def test_a_server_started_in_a_thread_outlives_the_thread(home: Path) -> None:
    server = make_postgres(home)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    try:
        # Were it tied to the thread, the signal would have been sent when the thread ended.
        assert query(server.url(), "SELECT 1") == 1
        assert server.running
    finally:
        server.stop()


def test_ctrl_c_at_the_terminal_does_not_reach_the_server(server: EmbeddedPostgres) -> None:
    assert os.getsid(server.pid) != os.getsid(0)
    assert os.getpgid(server.pid) != os.getpgid(0)


def test_one_directory_serves_one_server(home: Path) -> None:
    with make_postgres(home) as server:
        for second in (server, make_postgres(home)):
            with pytest.raises(AlreadyRunning) as caught:
                second.start()
            assert caught.value.pid == server.pid
        assert query(server.url(), "SELECT 1") == 1


def test_a_server_of_another_program_is_named(home: Path) -> None:
    with program(START, home / "postgres") as parent:
        pid, port = map(int, say(parent).split())
        with pytest.raises(AlreadyRunning, match=f"process {pid}"):
            make_postgres(home).start()
        with pytest.raises(AlreadyRunning):
            make_postgres(home).delete()
        assert not refuses(port)
        parent.kill()
        assert wait_until(lambda: not process_alive(pid), DEADLINE)


def test_of_two_starts_at_once_one_wins(home: Path) -> None:
    servers = [make_postgres(home), make_postgres(home)]
    together = threading.Barrier(2)
    refused: list[AlreadyRunning] = []

    def start(server: EmbeddedPostgres) -> None:
        together.wait()
        try:
            server.start()
        except AlreadyRunning as error:
            refused.append(error)

    threads = [threading.Thread(target=start, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert len(refused) == 1
        assert sorted(server.running for server in servers) == [False, True]
    finally:
        for server in servers:
            server.stop()


@on_linux
def test_a_server_that_was_started_by_hand_is_left_alone(home: Path) -> None:
    server = make_postgres(home)
    with server:
        pass
    port = find_free_port()
    command = [str(server.binary("postgres")), "-D", str(server.data_dir), "-c", f"port={port}"]
    account = choose_account(server.binary("postgres"), home)
    with GuardedProcess(command, log=server.log, account=account, stop_signal=signal.SIGINT) as by_hand:
        assert wait_until(lambda: not refuses(port), DEADLINE)
        with pytest.raises(AlreadyRunning) as caught:
            server.start()
        assert caught.value.pid == by_hand.pid
        assert not refuses(port)


@on_linux
def test_a_stale_pid_file_that_names_a_living_program_is_no_obstacle(home: Path) -> None:
    server = make_postgres(home)
    server.start()
    try:
        server.kill()
        pid_file = server.data_dir / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        # What a restarted container finds: the number belongs to another program by now.
        pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
        server.start()
        assert query(server.url(), "SELECT 1") == 1
    finally:
        server.stop()


def test_a_first_start_that_is_cut_short_is_done_again(home: Path) -> None:
    with program(START, home / "postgres") as parent:
        # initdb takes half a second from the appearance of its scratch directory on.
        assert wait_until(lambda: any(home.glob(".postgres.new-*")), DEADLINE, interval=0.001)
        parent.kill()
        parent.wait()
    assert not (home / "postgres").exists()
    with make_postgres(home) as server:
        assert query(server.url(), "SELECT 1") == 1
    assert sorted(path.name for path in home.iterdir()) == ["postgres", "postgres.lock", "postgres.password"]


def test_a_directory_with_other_files_is_not_touched(home: Path) -> None:
    (home / "postgres").mkdir()
    (home / "postgres" / "thesis.txt").write_text("precious")
    with pytest.raises(ServerError, match="no PostgreSQL cluster"):
        make_postgres(home).start()
    assert [path.name for path in (home / "postgres").iterdir()] == ["thesis.txt"]


def test_a_cluster_without_its_password_is_named(home: Path) -> None:
    with make_postgres(home) as server:
        pass
    server.password_file.unlink()
    with pytest.raises(ServerError, match="password is gone"):
        server.start()


def test_a_failing_start_shows_the_end_of_the_log(home: Path) -> None:
    with make_postgres(home):
        pass
    server = make_postgres(home, settings={"shared_preload_libraries": "no_such_library"})
    with pytest.raises(ServerError, match='could not access file "no_such_library"') as caught:
        server.start()
    # Not the log of the run before.
    assert "ready to accept connections" not in str(caught.value)
    assert not server.running
    with make_postgres(home) as again:
        assert query(again.url(), "SELECT 1") == 1


def test_a_start_that_takes_too_long_is_given_up(home: Path) -> None:
    with make_postgres(home):
        pass
    server = make_postgres(home, start_timeout=0.0)
    with pytest.raises(ServerError, match="was not ready after 0 s"):
        server.start()
    assert not server.lock.held()


def test_a_port_that_was_taken_meanwhile_is_replaced(home: Path) -> None:
    with make_postgres(home) as server:
        first = server.port
    with socket.create_server(("127.0.0.1", first)), make_postgres(home) as server:
        assert server.port != first
        assert query(server.url(), "SELECT 1") == 1
        second = server.port
    with make_postgres(home) as server:
        assert server.port == second


def test_a_port_that_was_asked_for_is_never_replaced(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = make_postgres(home, port=taken.getsockname()[1])
        with pytest.raises(ServerError, match="Address already in use"):
            server.start()


def test_a_path_too_long_for_a_unix_socket_does_without(home: Path) -> None:
    folder = home / ("long" * 25)
    with make_postgres(folder) as server:
        assert query(server.url(), "SHOW unix_socket_directories") == ""


@as_root
def test_root_gives_the_server_to_nobody(server: EmbeddedPostgres) -> None:
    assert Path(f"/proc/{server.pid}").stat().st_uid != 0
    assert server.data_dir.stat().st_uid != 0


@as_root
def test_root_may_keep_the_data_under_a_private_folder(home: Path) -> None:
    private = home / "private"
    private.mkdir(mode=0o700)
    with make_postgres(private / "data") as server:
        assert query(server.url(), "SELECT 1") == 1
    with make_postgres(private / "data") as server:
        assert query(server.url(), "SELECT 1") == 1
    assert private.stat().st_mode & 0o777 == 0o700


@as_root
def test_data_moves_between_the_accounts_of_root(home: Path) -> None:
    with make_postgres(home) as server:
        query(server.url(), "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (42) RETURNING n")
    for mode in (0o700, 0o711):
        home.chmod(mode)
        with make_postgres(home) as server:
            assert query(server.url(), "SELECT n FROM kept") == 42


@as_root
def test_without_an_account_for_root_the_fix_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    home.chmod(0o700)
    with pytest.raises(ServerError, match="Run as an ordinary user"):
        make_postgres(home).start()


def test_delete_leaves_nothing(home: Path) -> None:
    server = make_postgres(home)
    server.start()
    with pytest.raises(AlreadyRunning):
        server.delete()
    server.stop()
    server.delete()
    assert list(home.iterdir()) == []
    server.delete()


def test_binaries_are_found_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = find_postgres_binaries()
    assert (packaged / "initdb").is_file()
    monkeypatch.setenv("TENANTRY_POSTGRES_BIN", str(tmp_path))
    with pytest.raises(ServerError, match="TENANTRY_POSTGRES_BIN"):
        find_postgres_binaries()
    (tmp_path / "postgres").symlink_to(packaged / "postgres")
    assert find_postgres_binaries() == tmp_path
