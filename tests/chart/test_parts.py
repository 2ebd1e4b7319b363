"""PgBouncer, Valkey, the health check of `helm test`: what is rendered is started, as far as it is on this machine."""

from __future__ import annotations

import configparser
import http.server
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tenantry.dev.process import wait_until
from tenantry.dev.valkey import find_valkey_server
from tests.chart.cases import ALL_OPTIONS, merged
from tests.chart.helm import CHART, ROOT, render
from tests.chart.rendering import Rendering
from tests.servers import temporary_folder

PASSWORD = "c3VwZXJzZWNyZXQ"
PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that `nobody` may pass."""
    made = temporary_folder()
    yield made
    shutil.rmtree(made)


def _ini(rendering: Rendering) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(comment_prefixes=(";",))
    parser.read_string(rendering.named("ConfigMap", "tenantry-pgbouncer")["data"]["pgbouncer.ini"])
    return parser


@contextmanager
def _valkey(rendering: Rendering, folder: Path) -> Iterator[tuple[Any, subprocess.Popen[bytes]]]:
    """The server that the container would start, with its folder and its socket here."""
    config = rendering.named("ConfigMap", "tenantry-valkey")["data"]["valkey.conf"]
    here = config.replace("port 6379", f"port 0\nunixsocket {folder}/socket").replace("dir /data", f"dir {folder}")
    (folder / "valkey.conf").write_text(here)
    (folder / "bin").mkdir()
    (folder / "bin/valkey-server").symlink_to(find_valkey_server())
    (container,) = rendering.pod("valkey").spec["containers"]
    command = [part.replace("/etc/valkey/", f"{folder}/") for part in container["command"]]
    env = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "VALKEY_PASSWORD": PASSWORD}
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, start_new_session=True)
    # Its own pauses between attempts grow to seconds.
    client: Any = redis.Redis(unix_socket_path=f"{folder}/socket", password=PASSWORD, retry=Retry(NoBackoff(), 0))

    def answers() -> bool:
        assert process.poll() is None
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False

    try:
        assert wait_until(answers, 20)
        yield client, process
    finally:
        client.close()
        process.terminate()
        process.wait(20)


def test_valkey_starts_and_keeps_what_it_is_told_to(full: Rendering, folder: Path) -> None:
    with _valkey(full, folder) as (client, process):
        wanted = {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec", "save": ""}
        assert {name: client.config_get(name)[name] for name in wanted} == wanted
        assert client.config_get("maxmemory") == {"maxmemory": str(512 * 2**20)}
        # The shell has made room for it: signals are its own, and the password is in no argument.
        assert client.info("server")["process_id"] == process.pid
        assert PASSWORD not in Path(f"/proc/{process.pid}/cmdline").read_text()
        stranger = redis.Redis(unix_socket_path=f"{folder}/socket", retry=Retry(NoBackoff(), 0))
        with stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_valkeys_container_has_room_for_a_copy_of_what_it_holds(full: Rendering) -> None:
    (container,) = full.pod("valkey").spec["containers"]
    config = full.named("ConfigMap", "tenantry-valkey")["data"]["valkey.conf"]
    (held,) = re.findall(r"^maxmemory (\d+)mb$", config, re.MULTILINE)
    assert container["resources"]["limits"]["memory"] == f"{2 * int(held)}Mi"


def test_everybody_asks_this_valkey(full: Rendering) -> None:
    (service,) = (found for found in full.of("Service") if found["metadata"]["name"] == "tenantry-valkey")
    for pod in full.pods():
        address = pod.environment(full).get("TENANTRY_REDIS_URL")
        if address:
            assert address == ("value", "redis://:$(VALKEY_PASSWORD)@tenantry-valkey:6379/0"), pod.name
    assert service["spec"]["ports"][0]["port"] == 6379


def test_pgbouncer_is_configured_as_the_documents_say(full: Rendering) -> None:
    """docs/scale.md holds the configuration through which the whole application is tested."""
    found = re.search(r"```ini\n(.*?)```", (ROOT / "docs/scale.md").read_text(), re.DOTALL)
    assert found is not None
    documented = configparser.ConfigParser(comment_prefixes=(";",))
    documented.read_string(found[1])
    rendered = _ini(full)
    theirs, ours = dict(documented["pgbouncer"]), dict(rendered["pgbouncer"])
    for where in ("listen_addr", "auth_file"):
        del theirs[where], ours[where]
    assert theirs.items() <= ours.items()
    assert ours.keys() - theirs.keys() == {"unix_socket_dir", "server_tls_sslmode", "server_tls_ca_file"}
    assert rendered["databases"]["tenantry"] == "host=db.internal port=5432"


def test_pgbouncer_finds_its_files(full: Rendering) -> None:
    (container,) = full.pod("pgbouncer").spec["containers"]
    folders = {mount["mountPath"] for mount in container["volumeMounts"]}
    settings = _ini(full)["pgbouncer"]
    for path in (settings["auth_file"], settings["server_tls_ca_file"], container["command"][1]):
        assert str(Path(path).parent) in folders, path
    (port,) = container["ports"]
    assert settings["listen_port"] == str(port["containerPort"])


@pytest.mark.skipif(PGBOUNCER is None, reason="there is no pgbouncer on this machine")
def test_pgbouncer_starts_with_it_and_is_gone_when_transactions_have_ended(full: Rendering, folder: Path) -> None:
    ini = full.named("ConfigMap", "tenantry-pgbouncer")["data"]["pgbouncer.ini"]
    assert PGBOUNCER is not None
    (folder / "userlist.txt").write_text('"tenantry_app" "secret"\n')
    for pattern, replacement in (
        (r"^listen_addr = .*$", "listen_addr ="),
        (r"^unix_socket_dir =$", f"unix_socket_dir = {folder}"),
        (r"/run/tenantry/pgbouncer/", f"{folder}/"),
        # Of this machine's version; 1.21 knows the first, and the second is somebody's file.
        (r"^max_prepared_statements = .*$", ""),
        (r"^server_tls_.*$", ""),
    ):
        ini, count = re.subn(pattern, replacement, ini, flags=re.MULTILINE)
        assert count, pattern
    (folder / "pgbouncer.ini").write_text(ini)
    as_nobody: dict[str, Any] = {}
    if os.geteuid() == 0:
        # Of no account either, as in the container.
        user = full.pod("pgbouncer").spec["securityContext"]["runAsUser"]
        as_nobody = {"user": user, "group": user, "extra_groups": []}
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, user)
    process = subprocess.Popen([PGBOUNCER, f"{folder}/pgbouncer.ini"], stderr=subprocess.PIPE, **as_nobody)
    assert process.stderr is not None
    said = b""
    while b"process up" not in said:
        line = process.stderr.readline()
        assert line, said.decode()
        said += line
    # What its preStop sends.
    process.send_signal(2)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert b"FATAL" not in said


def test_pgbouncer_has_time_to_end(full: Rendering) -> None:
    pod = full.pod("pgbouncer")
    (_, _, script) = pod.spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert "kill -INT 1" in script
    seconds = sum(int(number) for number in re.findall(r"sleep (\d+)", script))
    assert pod.spec["terminationGracePeriodSeconds"] >= seconds + 10


@contextmanager
def _answering(statuses: dict[str, int]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses[self.path])
            self.end_headers()
            self.wfile.write(b'{"status": "made up"}')

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(("ready", "code"), [(200, 0), (503, 1)])
def test_helm_test_fails_where_the_api_is_not_ready(ready: int, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    ask = runpy.run_path(str(CHART / "files/ask_health.py"))["main"]
    with _answering({"/health/live": 200, "/health/ready": ready}) as address:
        assert ask(address, attempts=2, pause=0) == code
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["status"] for line in said] == [200, ready]
    assert said[1]["asked"] == f"{address}/health/ready"


def test_helm_test_runs_that_script_with_the_address_of_the_service(full: Rendering) -> None:
    (container,) = full.pod("test").spec["containers"]
    assert container["command"] == ["python"]
    option, script, address = container["args"]
    assert option == "-c"
    assert script == (CHART / "files/ask_health.py").read_text()
    (service,) = (found for found in full.of("Service") if found["metadata"]["name"] == "tenantry")
    assert address == f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    with _answering({"/health/live": 200, "/health/ready": 200}) as here:
        done = subprocess.run([sys.executable, option, script, here], capture_output=True, timeout=20, check=False)
    assert done.returncode == 0


def test_the_ports_of_parts_follow_the_values() -> None:
    rendering = Rendering(render(merged(ALL_OPTIONS, {"pgbouncer": {"port": 7000}})))
    (egress,) = (
        port["port"]
        for rule in rendering.named("NetworkPolicy", "tenantry-apply")["spec"]["egress"]
        for port in rule["ports"]
        if any("pgbouncer" in str(peer) for peer in rule.get("to") or ())
    )
    assert egress == 7000
    assert _ini(rendering)["pgbouncer"]["listen_port"] == "7000"
