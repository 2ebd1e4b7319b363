"""One trace from a request over its statements into its job, of two tenants at a time; what a job's lines say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from tenantry.features import JOBS
from tenantry.jobs.definition import JobRun, job
from tenantry.kernel import tracing
from tenantry.kernel.tracing import Tracing
from tests.jobs.api import JobApi, job_api  # noqa: F401 - a fixture
from tests.platform.support import eventually
from tests.world import TenantHandle

SENT = {"acme": "00-" + "a" * 32 + "-b7ad6b7169203331-01", "globex": "00-" + "b" * 32 + "-b7ad6b7169203331-01"}


@job("says_where", retries=2, timeout=10)
async def says_where(run: JobRun) -> None:
    structlog.get_logger("test").info("in the job", own=run.id)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    active = Tracing("test", SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "ACTIVE", active)
    yield exporter
    active.close()


def by_trace(exporter: InMemorySpanExporter) -> dict[str, list[ReadableSpan]]:
    found: dict[str, list[ReadableSpan]] = {}
    for span in exporter.get_finished_spans():
        assert span.context is not None
        found.setdefault(f"{span.context.trace_id:032x}", []).append(span)
    return found


def parents(spans: list[ReadableSpan], span: ReadableSpan) -> list[str]:
    """The names of the spans above one, within our own processes."""
    above = {found.context.span_id: found for found in spans if found.context}
    names = []
    while span.parent is not None and span.parent.span_id in above:
        span = above[span.parent.span_id]
        names.append(span.name)
    return names


async def test_a_trace_goes_from_the_request_over_its_statements_into_the_job(
    job_api: JobApi,  # noqa: F811
    acme: TenantHandle,
    globex: TenantHandle,
    spans: InMemorySpanExporter,
) -> None:
    owners = {"acme": await job_api.owner(acme), "globex": await job_api.owner(globex)}
    spans.clear()
    ids = {}
    for name, owner in owners.items():
        # Asks for a job in its transaction, which tells the new one by mail.
        body = {"email": f"new@{name}.example", "roles": ["member"]}
        made = await owner.post("/api/invitations", json=body, headers={"traceparent": SENT[name]})
        assert made.status_code == 201, made.text
        ids[name] = made.json()["id"]
    async with job_api.worker(*JOBS):

        async def done() -> bool:
            ended = [span for span in spans.get_finished_spans() if span.name.startswith("job ")]
            return len({span.context.trace_id for span in ended if span.context}) == 2

        await eventually(done, 20)
    traces = by_trace(spans)
    for name, tenant in (("acme", acme), ("globex", globex)):
        found = traces[SENT[name].split("-")[1]]
        [request] = [span for span in found if span.kind.name == "SERVER"]
        assert request.name == "POST /api/invitations"
        assert request.attributes is not None
        assert request.attributes["tenantry.tenant.id"] == str(tenant.tenant_id)
        assert request.attributes["tenantry.tenant.plan"] == "free"
        jobs = [span for span in found if span.name.startswith("job ")]
        assert jobs
        assert all((span.attributes or {})["tenantry.tenant.id"] == str(tenant.tenant_id) for span in jobs)
        statements = [span for span in found if "db.query.text" in (span.attributes or {})]
        below = {parents(found, span)[-1] for span in statements}
        assert {"POST /api/invitations"} <= below
        assert all(parents(found, span)[0] == "transaction" for span in statements)
        enqueued = [span for span in statements if "enqueue_job" in str(span.attributes["db.query.text"])]  # type: ignore[index]
        assert enqueued, "the job is written down in the request's transaction"
        assert parents(found, jobs[0])[-1] == "POST /api/invitations"
        slugs = {span.attributes.get("tenantry.tenant.slug") for span in found if span.attributes} - {None}
        assert slugs <= {tenant.slug, "platform"}
    assert "@acme.example" not in "".join(span.to_json() for span in spans.get_finished_spans())
    redis = [span for spans_ in traces.values() for span in spans_ if span.name.startswith("redis ")]
    assert redis
    assert all(set(span.attributes or {}) <= {"db.system.name", "db.operation.name", "error.type"} for span in redis)


async def test_without_tracing_a_jobs_lines_have_the_ids_of_the_request_that_asked_for_it(
    job_api: JobApi,  # noqa: F811
    acme: TenantHandle,
) -> None:
    done = {"job": "says_where", "plan": "free", "outcome": "done"}
    before = REGISTRY.get_sample_value("tenantry_jobs_total", done) or 0.0
    ids = {"request_id": "r-1", "trace_id": "c" * 32}
    with structlog.contextvars.bound_contextvars(**ids):
        job_id = await job_api.enqueue(acme, says_where)
    with capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        async with job_api.worker(says_where):
            await job_api.until_gone(job_id)
    [line] = [line for line in lines if line["event"] == "in the job"]
    told: dict[str, Any] = {name: line[name] for name in ("request_id", "trace_id", "tenant", "job_name", "own")}
    assert told == {**ids, "tenant": acme.slug, "job_name": "says_where", "own": str(job_id)}
    assert str(job_id) in line["job"]
    assert REGISTRY.get_sample_value("tenantry_jobs_total", done) == before + 1
    assert (REGISTRY.get_sample_value("tenantry_job_wait_seconds_count", {"plan": "free"}) or 0) >= 1
    assert REGISTRY.get_sample_value("tenantry_jobs_running") == 0
