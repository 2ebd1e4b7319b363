"""Trace ids: where they come from, what is believed of what clients send, and that nothing of it costs without."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar import Litestar, get
from litestar.params import FromPath
from litestar.testing import TestClient
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.contextvars import get_contextvars

from tenantry.kernel import tracing
from tenantry.kernel.errors import ConflictException
from tenantry.kernel.http import Edge, edge
from tenantry.kernel.http.plugin import HttpPlugin
from tenantry.kernel.settings import SettingsError, load_settings
from tenantry.kernel.tracing import TraceParent, Tracing, continued, outgoing_traceparent, parse_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SENT = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    active = Tracing("test", SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "ACTIVE", active)
    yield exporter
    active.close()


@get("/things/{thing_id:int}")
async def thing(thing_id: FromPath[int]) -> dict[str, Any]:
    if thing_id == 0:
        raise ConflictException
    if thing_id == 5:
        raise RuntimeError("broken")
    return {"logged": get_contextvars().get("trace_id"), "outgoing": outgoing_traceparent()}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient[Edge]]:
    app = Litestar([thing], plugins=[HttpPlugin(title="Test", version="1")], logging_config=None)
    with TestClient(edge(app), raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize(
    "text",
    [
        *("", "00", SENT[:-1], SENT + "0", SENT.upper(), f"ff-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-more"),
        *(f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00_{TRACE}_{SPAN}_01", SENT.replace("a", "g")),
    ],
)
def test_what_is_no_traceparent_says_nothing(text: str) -> None:
    assert parse_traceparent(text) is None


def test_a_traceparent_of_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert parse_traceparent(f"cc-{TRACE}-{SPAN}-09-what-the-future-brings") == TraceParent(TRACE, SPAN, True)
    assert parse_traceparent(f" 00-{TRACE}-{SPAN}-00") == TraceParent(TRACE, SPAN, False)


@given(st.one_of(st.binary(), st.text(), st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")))
def test_whatever_is_sent_either_round_trips_or_is_nothing(sent: str | bytes) -> None:
    parsed = parse_traceparent(sent)
    assert parsed is None or parse_traceparent(str(parsed)) == parsed


def test_every_error_says_which_trace_it_belongs_to(client: TestClient[Edge]) -> None:
    for path in ("/things/0", "/nowhere", "/things/5"):
        answer = client.get(path, headers={"traceparent": SENT}).json()
        assert answer["traceId"] == TRACE
        made = client.get(path).json()
        assert made["traceId"] == made["requestId"]
        named = client.get(path, headers={"X-Request-ID": "mine"}).json()
        assert (named["requestId"], len(named["traceId"])) == ("mine", 32)
        assert int(named["traceId"], 16)


def test_without_tracing_a_trace_goes_on_as_it_came(client: TestClient[Edge]) -> None:
    assert client.get("/things/1", headers={"traceparent": SENT}).json() == {"logged": TRACE, "outgoing": SENT}
    alone = client.get("/things/1").json()
    assert (len(alone["logged"]), alone["outgoing"]) == (32, None)


def test_a_request_is_a_span_of_the_trace_that_it_came_with(
    client: TestClient[Edge], spans: InMemorySpanExporter
) -> None:
    answer = client.get("/things/1", headers={"traceparent": SENT}).json()
    [span] = spans.get_finished_spans()
    assert span.context is not None
    assert span.parent is not None
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, SPAN)
    assert (span.name, span.kind.name) == ("GET /things/{thing_id}", "SERVER")
    assert span.attributes == {
        "http.request.method": "GET",
        "http.route": "/things/{thing_id}",
        "http.response.status_code": 200,
    }
    assert answer == {"logged": TRACE, "outgoing": f"00-{TRACE}-{span.context.span_id:016x}-01"}


def test_requests_are_traces_of_their_own_and_an_error_names_its(
    client: TestClient[Edge], spans: InMemorySpanExporter
) -> None:
    told = [client.get(path).json()["traceId"] for path in ("/things/0", "/things/5")]
    found = spans.get_finished_spans()
    assert [f"{span.context.trace_id:032x}" for span in found if span.context] == told
    assert len(set(told)) == 2
    assert all(span.parent is None for span in found)
    assert [span.status.is_ok for span in found] == [True, False], "a caller's mistake is no error of ours"


def test_what_a_client_says_is_sampled_is_not_believed(
    client: TestClient[Edge], monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = InMemorySpanExporter()
    active = Tracing("test", SimpleSpanProcessor(exporter), rate=0.0)
    monkeypatch.setattr(tracing, "ACTIVE", active)
    answer = client.get("/things/0", headers={"traceparent": SENT}).json()
    assert answer["traceId"] == TRACE
    assert exporter.get_finished_spans() == ()
    active.close()


def test_a_job_continues_its_requests_trace_and_one_without_begins_its_own(spans: InMemorySpanExporter) -> None:
    with continued("job a", SENT, {"tenantry.job.id": "1"}) as trace_id:
        assert trace_id == TRACE
        assert outgoing_traceparent() != SENT
    with (
        continued("job b", None, {}) as other,
        pytest.raises(ValueError, match="secret"),
        continued("job c", None, {}),
    ):
        raise ValueError("a secret")
    assert other != TRACE
    assert outgoing_traceparent() is None
    first, broken, last = spans.get_finished_spans()
    assert (first.name, broken.name, last.name) == ("job a", "job c", "job b")
    assert (broken.attributes or {})["error.type"] == "ValueError"
    assert broken.events == (), "an exception's text may quote somebody's data"
    assert "secret" not in broken.to_json()


def test_without_tracing_a_job_hands_on_what_it_was_handed() -> None:
    with continued("job a", SENT, {}) as trace_id:
        assert (trace_id, outgoing_traceparent()) == (TRACE, SENT)
    assert outgoing_traceparent() is None


_IMPORTS = """
import sys
sys.modules["opentelemetry"] = None  # whoever imports it is told that there is none
import tenantry.asgi, tenantry.worker, tenantry.provisioner
from tenantry.kernel.tracing import begin_request
print(begin_request(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "1")[0])
"""


def test_without_opentelemetry_everything_is_there_but_spans() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", _IMPORTS], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == TRACE


def test_what_makes_spans_is_not_imported_where_nothing_is_traced() -> None:
    # redis-py imports the metrics of OpenTelemetry wherever it is installed; the traces are ours to leave out.
    script = 'import sys, tenantry.asgi, tenantry.worker; print("opentelemetry.sdk.trace" in sys.modules)'
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_an_address_without_the_extra_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "find_spec", lambda _: None)
    settings = load_settings({"TENANTRY_TRACING_URL": "http://127.0.0.1:4318"})
    with pytest.raises(SettingsError, match=r"pip install 'tenantry\[otel\]'"):
        tracing.start_tracing(settings, "tenantry-api")
    assert tracing.ACTIVE is None
