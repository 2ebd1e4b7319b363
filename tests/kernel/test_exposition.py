"""The metrics and the health of a worker or a provisioner: to whom they are told, and what is not."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path

import httpx
import pytest
from litestar import Litestar
from litestar.testing import TestClient
from structlog.testing import capture_logs

from tenantry.kernel import exposition
from tenantry.kernel.exposition import serving_metrics
from tenantry.kernel.http import edge
from tenantry.kernel.http.plugin import HttpPlugin
from tenantry.kernel.metrics import MetricsGuard, sampling
from tenantry.kernel.settings import Settings, load_settings
from tests.kernel.settings_support import problems

TOKEN = "correct-horse-battery"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def settings(**variables: object) -> Settings:
    return load_settings({f"TENANTRY_{name.upper()}": str(value) for name, value in variables.items()})


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_process_without_routes_serves_its_metrics_and_nothing_else() -> None:
    sampled = []
    with serving_metrics(settings(metrics_port=free_port())) as port, sampling(lambda: sampled.append(1)):
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics")
        assert answer.status_code == 200
        assert "tenantry_http_requests_in_flight" in answer.text
        assert answer.headers["content-type"].startswith("text/plain; version=")
        assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 404
        assert httpx.post(f"http://127.0.0.1:{port}/metrics").status_code == 501
        assert "Python" not in answer.headers.get("server", "")
    assert sampled == [1]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/metrics")


def test_without_a_port_nothing_listens() -> None:
    with serving_metrics(settings()) as port:
        assert port == 0


def test_a_port_that_is_taken_costs_the_metrics_alone() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        capture_logs() as lines,
        serving_metrics(settings(metrics_port=taken.getsockname()[1])) as port,
    ):
        assert port == 0
    assert [(line["event"], line["log_level"]) for line in lines] == [("the metrics cannot be served", "error")]


@pytest.mark.parametrize("by_file", [True, False])
def test_with_a_token_set_only_who_knows_it_is_told(tmp_path: Path, by_file: bool) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    given = {"metrics_token_file": file} if by_file else {"metrics_token": TOKEN}
    with serving_metrics(settings(metrics_port=free_port(), **given)) as port:
        address = f"http://127.0.0.1:{port}/metrics"
        refused = [httpx.get(address, headers=headers) for headers in ({}, bearer("wrong"), {"Authorization": TOKEN})]
        assert [answer.status_code for answer in refused] == [401] * 3
        assert all(answer.headers["www-authenticate"].startswith("Bearer") for answer in refused)
        assert not any("tenantry_" in answer.text for answer in refused)
        assert httpx.get(address, headers=bearer(TOKEN)).status_code == 200
        if by_file:
            file.write_text("another-long-enough-token")
            assert httpx.get(address, headers=bearer(TOKEN)).status_code == 401
            file.write_text("")
            assert httpx.get(address, headers={"Authorization": "Bearer"}).status_code == 401
            file.unlink()
            assert httpx.get(address, headers=bearer(TOKEN)).status_code == 503


def test_the_apis_endpoint_asks_for_it_as_well() -> None:
    app = Litestar([], plugins=[HttpPlugin(title="Test", version="1")], logging_config=None)
    app.state["metrics_guard"] = MetricsGuard(settings(metrics_token=TOKEN))
    with TestClient(edge(app)) as client:
        refused = client.get("/metrics", headers={b"Authorization": "Bearer ä".encode()})
        assert (refused.status_code, refused.json()["type"]) == (401, "/problems/not-authenticated")
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers=bearer(TOKEN)).status_code == 200
        app.state["metrics_guard"] = MetricsGuard(settings(metrics_token_file="/nowhere"))
        assert client.get("/metrics", headers=bearer(TOKEN)).status_code == 503


def test_a_token_is_long_and_never_shown() -> None:
    assert problems(METRICS_TOKEN="short") == (
        "TENANTRY_METRICS_TOKEN: got (not shown), expected at least 16 printable characters without spaces",
    )
    assert TOKEN not in repr(settings(metrics_token=TOKEN))
    [problem] = problems(METRICS_TOKEN=TOKEN, METRICS_TOKEN_FILE="/run/token")
    assert problem.startswith("TENANTRY_METRICS_TOKEN_FILE: got ")
    assert TOKEN not in problem


@pytest.mark.parametrize("rate", ["-0.1", "1.1", "nan"])
def test_a_rate_is_a_share(rate: str) -> None:
    assert problems(TRACING_RATE=rate) == (f"TENANTRY_TRACING_RATE: got '{rate}', expected a number from 0 to 1",)


async def test_a_process_is_well_while_its_event_loop_turns_and_ready_when_it_says_so() -> None:
    ready = False
    told = settings(metrics_port=free_port(), metrics_token=TOKEN)
    with serving_metrics(told, loop=asyncio.get_running_loop(), is_ready=lambda: ready) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            # Without the token, which no kubelet has.
            assert (await http.get("/health/live")).status_code == 200
            assert (await http.get("/health/ready")).status_code == 503
            ready = True
            assert (await http.get("/health/ready")).status_code == 200
            assert (await http.get("/metrics")).status_code == 401


async def test_a_process_whose_event_loop_hangs_is_neither_alive_nor_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "_TURN", 0.2)
    said: dict[str, int] = {}
    with serving_metrics(settings(metrics_port=free_port()), loop=asyncio.get_running_loop()) as port:

        def ask() -> None:
            for path in ("live", "ready"):
                said[path] = httpx.get(f"http://127.0.0.1:{port}/health/{path}").status_code

        asking = threading.Thread(target=ask)
        asking.start()
        # The loop waits for who asks whether it turns.
        asking.join(20)
        assert said == {"live": 503, "ready": 503}
        assert (await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{port}/health/live")).status_code == 200
