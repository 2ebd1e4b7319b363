"""Metrics: what is counted, under which labels, and for all workers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from litestar import Litestar, get
from litestar.params import FromPath
from litestar.testing import TestClient
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from tenantry.kernel.errors import ConflictException
from tenantry.kernel.http import Edge, edge
from tenantry.kernel.http.plugin import HttpPlugin
from tenantry.kernel.metrics import observe_tenant


@get("/metered/{team_id:int}")
async def metered(team_id: FromPath[int]) -> dict[str, int]:
    if team_id == 0:
        raise ConflictException
    return {"inFlight": int(REGISTRY.get_sample_value("tenantry_http_requests_in_flight") or 0)}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient[Edge]]:
    plugin = HttpPlugin(title="Test", version="1")
    with TestClient(edge(Litestar([metered], plugins=[plugin], logging_config=None))) as client:
        yield client


def requests(method: str, route: str, status: int) -> float:
    labels = {"method": method, "route": route, "status": str(status)}
    counted = REGISTRY.get_sample_value("tenantry_http_requests_total", labels) or 0.0
    timed = REGISTRY.get_sample_value("tenantry_http_request_duration_seconds_count", labels) or 0.0
    assert counted == timed
    return counted


def test_requests_are_counted_by_the_template_of_their_route(client: TestClient[Edge]) -> None:
    before = requests("GET", "/metered/{team_id}", 200)
    for team_id in (1, 2, 3):
        client.get(f"/metered/{team_id}")
    assert requests("GET", "/metered/{team_id}", 200) == before + 3


def test_unknown_paths_and_methods_share_one_label_each(client: TestClient[Edge]) -> None:
    before, other = requests("GET", "unmatched", 404), requests("other", "unmatched", 405)
    for path in ("/a", "/b/c", "/metered/x"):
        assert client.get(path).status_code == 404
    for method in ("BREW", "PROPFIND"):
        assert client.request(method, "/metered/1").status_code == 405
    assert requests("GET", "unmatched", 404) == before + 3
    assert requests("other", "unmatched", 405) == other + 2
    assert "BREW" not in client.get("/metrics").text


def test_a_request_is_in_flight_while_it_is_served_and_not_afterwards(client: TestClient[Edge]) -> None:
    assert client.get("/metered/1").json() == {"inFlight": 1}
    assert REGISTRY.get_sample_value("tenantry_http_requests_in_flight") == 0


def test_problems_are_counted_by_type(client: TestClient[Edge]) -> None:
    before = REGISTRY.get_sample_value("tenantry_problems_total", {"type": "conflict"}) or 0.0
    assert client.get("/metered/0").status_code == 409
    assert REGISTRY.get_sample_value("tenantry_problems_total", {"type": "conflict"}) == before + 1


def test_the_endpoint_answers_in_the_text_format(client: TestClient[Edge]) -> None:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert answer.headers["content-type"].count("charset") == 1
    names = {family.name for family in text_string_to_metric_families(answer.text)}
    assert {"tenantry_http_requests", "tenantry_http_requests_in_flight", "tenantry_problems"} <= names


WORKER = """
import sys
from tenantry.kernel.metrics import observe_request, render_metrics
for _ in range(int(sys.argv[1])):
    observe_request("GET", "/worker", 200, 0.01)
if sys.argv[2] == "scrape":
    sys.stdout.write(render_metrics().decode())
"""


def run_worker(directory: Path, requests: int, then: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", WORKER, str(requests), then]
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def test_one_worker_answers_for_all(tmp_path: Path) -> None:
    run_worker(tmp_path, 2, "leave")
    scraped = run_worker(tmp_path, 3, "scrape")
    assert 'tenantry_http_requests_total{method="GET",route="/worker",status="200"} 5.0' in scraped


KILLED = """
import os
from tenantry.kernel.metrics import IN_FLIGHT, observe_request
IN_FLIGHT.inc()
observe_request("GET", "/killed", 200, 0.01)
os._exit(0)
"""


def test_what_a_killed_worker_was_at_is_forgotten_and_what_it_counted_is_not(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", KILLED], env=environment, check=True)
    scraped = run_worker(tmp_path, 1, "scrape")
    assert "tenantry_http_requests_in_flight 0.0" in scraped
    assert 'tenantry_http_requests_total{method="GET",route="/killed",status="200"} 1.0' in scraped


def test_tenants_are_counted_by_plan_and_not_by_name() -> None:
    def counted(status: str) -> float:
        return REGISTRY.get_sample_value("tenantry_plan_requests_total", {"plan": "gold", "status": status}) or 0.0

    def timed() -> float:
        return REGISTRY.get_sample_value("tenantry_plan_request_duration_seconds_count", {"plan": "gold"}) or 0.0

    before, ok, refused = timed(), counted("2xx"), counted("4xx")
    for tenant, status in (("acme", 200), ("globex", 201), ("acme", 429)):
        observe_tenant(tenant, "gold", status, 0.01)
    assert (timed(), counted("2xx"), counted("4xx")) == (before + 3, ok + 2, refused + 1)
    labels = {label for family in REGISTRY.collect() for sample in family.samples for label in sample.labels.items()}
    assert ("plan", "acme") not in labels
