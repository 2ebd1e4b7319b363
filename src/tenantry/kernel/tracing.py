"""Traces: which request is behind a line, an error, a statement, a job, in every process that it reaches.

Every request has a trace id, with OpenTelemetry or without: that of its `traceparent` (W3C Trace Context), else one
that is made here. It is in each log line and each error, goes into the outbox with the jobs that the request asks for,
and out with webhooks. Spans are made only where TENANTRY_TRACING_URL says where to send them; without, `ACTIVE` is
None, nothing of OpenTelemetry is imported, and a request pays for a look at that name.
"""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from uuid_utils import uuid7

from tenantry.kernel.settings import SettingsError
from tenantry.kernel.work import WORK

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span

    from tenantry.kernel.settings import Settings

__all__ = (
    "ACTIVE",
    "RequestSpan",
    "TraceParent",
    "Tracing",
    "TransactionSpan",
    "begin_request",
    "continued",
    "outgoing_traceparent",
    "parse_traceparent",
    "start_tracing",
    "stop_tracing",
)

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_STATEMENT_LENGTH = 2000
_VERB: Final = re.compile(r"\s*([A-Za-z]+)")

ACTIVE: Tracing | None = None
"""Where spans are made; None where nothing is traced."""

_sent: ContextVar[TraceParent | None] = ContextVar("tenantry_traceparent", default=None)


class TraceParent(NamedTuple):
    """Whose trace something belongs to, and under which of its spans (W3C Trace Context §3.2)."""

    trace_id: str
    span_id: str
    is_sampled: bool

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{int(self.is_sampled):02x}"


def parse_traceparent(text: str | bytes | None) -> TraceParent | None:
    """What a `traceparent` says; None where it says nothing that can be relied on.

    Of a later version the parts of this one are read, and what follows them is not (§4.3).
    """
    if text is None:
        return None
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    match = _TRACEPARENT.fullmatch(text.strip(" \t"))
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return TraceParent(trace_id, span_id, bool(int(flags, 16) & 1))


def begin_request(sent: bytes | None, request_id: str) -> tuple[str, RequestSpan | None]:
    """The trace id of a request that has come with this `traceparent`, and its span, where there is one to `end`.

    Without either it is the request's own id, which has the same form unless the client has chosen it.
    """
    parent = parse_traceparent(sent)
    _sent.set(parent)
    if ACTIVE is not None:
        span = ACTIVE.request(parent)
        return span.trace_id, span
    if parent is not None:
        return parent.trace_id, None
    if _TRACE_ID.fullmatch(request_id) and request_id != _NO_TRACE:
        return request_id, None
    return str(uuid7().hex), None


def outgoing_traceparent() -> str | None:
    """What to send along with whatever this request, or this job, has others do; None where it belongs to no trace."""
    if ACTIVE is not None:
        return ACTIVE.traceparent()
    parent = _sent.get()
    return None if parent is None else str(parent)


@contextmanager
def continued(name: str, sent: str | None, attributes: Mapping[str, str | int]) -> Iterator[str]:
    """Do a job, in the trace of whoever asked for it; the trace's id.

    Args:
        name: of its span.
        sent: the `traceparent` that came with it.
        attributes: of its span.
    """
    parent = parse_traceparent(sent)
    token = _sent.set(parent)
    try:
        if ACTIVE is not None:
            with ACTIVE.job(name, parent, attributes) as trace_id:
                yield trace_id
        else:
            yield parent.trace_id if parent is not None else str(uuid7().hex)
    finally:
        _sent.reset(token)


class RequestSpan:
    """A request's span, which is the current one until its `end`."""

    __slots__ = ("_span", "_token", "_tracing", "trace_id")

    def __init__(self, tracing: Tracing, span: Span) -> None:
        self._tracing = tracing
        self._span = span
        self._token = tracing.attach(span)
        self.trace_id = f"{span.get_span_context().trace_id:032x}"

    def end(self, method: str, route: str, status: int, tenant: Any) -> None:
        """The request is answered; `tenant` is its `TenantContext`, or None."""
        span = self._span
        span.update_name(f"{method} {route}")
        span.set_attribute("http.request.method", method)
        span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", status)
        if tenant is not None:
            span.set_attribute("tenantry.tenant.id", str(tenant.id))
            span.set_attribute("tenantry.tenant.plan", tenant.plan.slug)
        if status >= 500:
            span.set_status(self._tracing.error)
        span.end()
        self._tracing.detach(self._token)


class TransactionSpan:
    """A transaction's span, and what makes those of its statements."""

    __slots__ = ("_context", "_span", "_tracing")

    def __init__(self, tracing: Tracing, span: Span) -> None:
        self._tracing = tracing
        self._span = span
        self._context = tracing.context_of(span)

    def statement(self, query: str, seconds: float, error: BaseException | None) -> None:
        """A statement that has just ended, after so many seconds; its text has no values in it."""
        if not self._span.is_recording():
            return
        now = time.time_ns()
        verb = match[1].upper() if (match := _VERB.match(query)) else "SQL"
        span = self._tracing.child(verb, self._context, now - round(seconds * 1e9))
        span.set_attribute("db.system.name", "postgresql")
        span.set_attribute("db.operation.name", verb)
        span.set_attribute("db.query.text", " ".join(query.split())[:_STATEMENT_LENGTH])
        if error is not None:
            # Its name alone: the text of a violated constraint quotes somebody's data.
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(self._tracing.error)
        span.end(now)

    def end(self, *, failed: bool) -> None:
        """The connection goes back to the pool, or is closed where it has `failed`."""
        if failed:
            self._span.set_status(self._tracing.error)
        self._span.end()


class Tracing:
    """The spans of one process."""

    def __init__(self, service: str, processor: SpanProcessor, *, rate: float = 1.0) -> None:
        """`rate` is the share of traces that are recorded, decided by their id: in all processes alike.

        Raises:
            ImportError: OpenTelemetry is not installed.
        """
        from opentelemetry import context, trace
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

        self._context, self._trace = context, trace
        self.error = trace.Status(trace.StatusCode.ERROR)
        ratio = TraceIdRatioBased(rate)
        # What a client claims to have sampled is not believed: it would fill the store at its pleasure. The share is
        # found by the trace's id, so that all who have the same rate come to the same answer without being told.
        sampler = ParentBased(ratio, remote_parent_sampled=ratio)
        # Not the global one: that can be set once only, and is for whoever embeds us.
        self._provider = TracerProvider(sampler=sampler, resource=Resource.create({SERVICE_NAME: service}))
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("tenantry")

    def attach(self, span: Span) -> Any:
        return self._context.attach(self._trace.set_span_in_context(span))

    def detach(self, token: Any) -> None:
        self._context.detach(token)

    def context_of(self, span: Span) -> Any:
        return self._trace.set_span_in_context(span)

    def child(self, name: str, context: Any, started: int) -> Span:
        return self._tracer.start_span(name, context, kind=self._trace.SpanKind.CLIENT, start_time=started)

    def request(self, parent: TraceParent | None) -> RequestSpan:
        """A request's span, from now on the current one."""
        span = self._tracer.start_span("request", self._remote(parent), kind=self._trace.SpanKind.SERVER)
        return RequestSpan(self, span)

    def transaction(self, tenant: str, plane: str, *, read_only: bool) -> TransactionSpan:
        """A transaction's span, below the current one."""
        span = self._tracer.start_span("transaction", kind=self._trace.SpanKind.CLIENT)
        if span.is_recording():
            span.set_attribute("db.system.name", "postgresql")
            span.set_attribute("tenantry.plane", plane)
            span.set_attribute("tenantry.tenant.slug", tenant)
            span.set_attribute("tenantry.read_only", read_only)
            span.set_attribute("tenantry.work", WORK.get())
        return TransactionSpan(self, span)

    @contextmanager
    def redis(self, command: str) -> Iterator[None]:
        """A command's span; of its keys and values it says nothing."""
        # An error's text may quote the command, and so what was written.
        with self._tracer.start_as_current_span(
            f"redis {command}", kind=self._trace.SpanKind.CLIENT, record_exception=False, set_status_on_exception=False
        ) as span:
            span.set_attribute("db.system.name", "redis")
            span.set_attribute("db.operation.name", command)
            try:
                yield
            except Exception as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(self.error)
                raise

    @contextmanager
    def job(self, name: str, parent: TraceParent | None, attributes: Mapping[str, str | int]) -> Iterator[str]:
        """A job's span, the current one inside the block; its trace's id."""
        with self._tracer.start_as_current_span(
            name,
            self._remote(parent),
            kind=self._trace.SpanKind.CONSUMER,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            span.set_attributes(dict(attributes))
            try:
                yield f"{span.get_span_context().trace_id:032x}"
            except Exception as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(self.error)
                raise

    def traceparent(self) -> str | None:
        """Of the current span."""
        context = self._trace.get_current_span().get_span_context()
        if not context.is_valid:
            return None
        return str(TraceParent(f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags.sampled))

    def _remote(self, parent: TraceParent | None) -> Any:
        """The context of a span that is elsewhere; an empty one, so that nothing here is taken for its parent."""
        empty = self._context.Context()
        if parent is None:
            return empty
        span_context = self._trace.SpanContext(
            int(parent.trace_id, 16),
            int(parent.span_id, 16),
            is_remote=True,
            trace_flags=self._trace.TraceFlags(int(parent.is_sampled)),
        )
        return self._trace.set_span_in_context(self._trace.NonRecordingSpan(span_context), empty)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def start_tracing(settings: Settings, service: str) -> None:
    """Make spans in this process and send them, if the settings say where to.

    The exporter's own variables hold besides (`OTEL_EXPORTER_OTLP_HEADERS` for a token, say).

    Raises:
        SettingsError: the extra `otel` is not installed.
    """
    global ACTIVE
    if settings.tracing_url is None:
        return
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.exporter") is None:
        raise SettingsError(["TENANTRY_TRACING_URL: needs the extra otel: pip install 'tenantry[otel]'"])
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter = OTLPSpanExporter(endpoint=f"{settings.tracing_url}/v1/traces")
    ACTIVE = Tracing(service, BatchSpanProcessor(exporter), rate=settings.tracing_rate)


def stop_tracing() -> None:
    """Send what is left, and make no more spans. It waits for the collector: call it in a thread."""
    global ACTIVE
    tracing, ACTIVE = ACTIVE, None
    if tracing is not None:
        tracing.close()
