"""Prometheus metrics of the edge, and the endpoint that serves all metrics.

With several workers, `PROMETHEUS_MULTIPROC_DIR` must name a directory before this process starts
(`tenantry serve` sees to it); then a scrape of any worker answers for all of them.

Labels are bounded by what is written down: routes, plans, problem types, names of jobs. Who the tenant is, is a label
of two series alone, and of so many tenants as a setting says: `tenantry.kernel.busiest`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litestar import Request, Response, get
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from tenantry.kernel.busiest import BusiestTenants
from tenantry.kernel.errors import NotAuthenticatedException, UnavailableException

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tenantry.kernel.settings import Settings

__all__ = (
    "BUSIEST",
    "CONTENT_TYPE",
    "IN_FLIGHT",
    "OPEN_STREAMS",
    "UNMATCHED",
    "MetricsGuard",
    "keep_sampling",
    "metrics_endpoint",
    "observe_request",
    "observe_tenant",
    "problem_seen",
    "render_metrics",
    "sampling",
)

UNMATCHED = "unmatched"
"""The route of requests that match none. Paths themselves are never labels: anyone can invent them without end."""

# Litestar adds the charset to text by itself.
CONTENT_TYPE = CONTENT_TYPE_LATEST.removesuffix("; charset=utf-8")

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LABELS = ("method", "route", "status")
_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
_LIVE_FILE = re.compile(r"gauge_live\w*_(\d+)\.db")
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SAMPLED = 5.0
"""Seconds between two looks at what is not counted as it happens, for the scrapes that another process answers."""

_requests = Counter("tenantry_http_requests", "Requests answered.", _LABELS)
_duration = Histogram(
    "tenantry_http_request_duration_seconds",
    "Time from the request's arrival to the end of its answer.",
    _LABELS,
    buckets=_BUCKETS,
)
IN_FLIGHT = Gauge("tenantry_http_requests_in_flight", "Requests being served now.", multiprocess_mode="livesum")
OPEN_STREAMS = Gauge("tenantry_open_streams", "People who follow their notifications now.", multiprocess_mode="livesum")
_problems = Counter("tenantry_problems", "Error answers by problem type.", ("type",))
_plan_requests = Counter(
    "tenantry_plan_requests", "Tenants' requests answered, by their plan; status 2xx to 5xx.", ("plan", "status")
)
_plan_duration = Histogram(
    "tenantry_plan_request_duration_seconds",
    "Time of tenants' requests, from arrival to the end of the answer, by their plan.",
    ("plan",),
    buckets=_BUCKETS,
)

BUSIEST = BusiestTenants()
"""Of this process. Its figures are made at a scrape, and so it is asked apart from the files of several processes."""
REGISTRY.register(BUSIEST)

_children: dict[tuple[str, str, int], tuple[Callable[[], None], Callable[[float], None]]] = {}
_plan_children: dict[tuple[str, int], tuple[Callable[[], None], Callable[[float], None]]] = {}
_samplers: list[Callable[[], None]] = []


def observe_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count one answered request. `route` is a template (`/api/teams/{id}`) or `UNMATCHED`; status 0: no answer."""
    try:
        count, observe = _children[method, route, status]
    except KeyError:
        # Looking up labelled children takes a lock and costs more than counting does (measured: 2.5 against 1.2 µs).
        # The cache is keyed by the raw method, which clients invent as well: only the known ones may enter it.
        labels = (method if method in _METHODS else "other", route, str(status))
        count, observe = _requests.labels(*labels).inc, _duration.labels(*labels).observe
        if method in _METHODS:
            _children[method, route, status] = count, observe
    count()
    observe(seconds)


def observe_tenant(tenant: str, plan: str, status: int, seconds: float) -> None:
    """Count one answered request of a tenant, by its slug and its plan's."""
    try:
        count, observe = _plan_children[plan, status]
    except KeyError:
        count = _plan_requests.labels(plan, f"{status // 100}xx").inc
        observe = _plan_duration.labels(plan).observe
        _plan_children[plan, status] = count, observe
    count()
    observe(seconds)
    BUSIEST.observe(tenant, seconds)


def problem_seen(slug: str) -> None:
    """Count one error answer of that problem type."""
    _problems.labels(slug).inc()


@contextlib.contextmanager
def sampling(*samplers: Callable[[], None]) -> Iterator[None]:
    """Inside the block, have functions set the gauges that nobody sets as things happen, before they are told.

    They are called in whatever thread answers a scrape: they look, and change nothing.
    """
    _samplers.extend(samplers)
    try:
        yield
    finally:
        for sampler in samplers:
            _samplers.remove(sampler)


async def keep_sampling() -> None:
    """Sample every few seconds, until it is cancelled: where another process may answer for this one."""
    while _DIRECTORY in os.environ:
        _sample()
        await asyncio.sleep(_SAMPLED)


def _sample() -> None:
    for sampler in _samplers:
        sampler()


def render_metrics() -> bytes:
    """All metrics of this process, or of all workers, in Prometheus' text format."""
    _sample()
    registry: CollectorRegistry = REGISTRY
    if directory := os.environ.get(_DIRECTORY):
        _forget_dead(Path(directory))
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=directory)  # type: ignore[no-untyped-call]
        registry.register(BUSIEST)
    return generate_latest(registry)


def _forget_dead(directory: Path) -> None:
    """Remove what workers that have ended were at: a killed one's requests in flight would be so for ever.

    What they have counted stays, or all sums would fall.
    """
    for pid in {int(match[1]) for path in directory.iterdir() if (match := _LIVE_FILE.fullmatch(path.name))}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
        except PermissionError:
            # Alive, and somebody else's by now: the system gives numbers again.
            continue


class MetricsGuard:
    """Lets those in who know the token, or all where there is none."""

    def __init__(self, settings: Settings) -> None:
        self._token = settings.metrics_token
        self._file = settings.metrics_token_file

    def admits(self, authorization: str | None) -> bool:
        """Whether a header `Authorization: Bearer <token>` has the token; constant in time.

        Raises:
            OSError: the file of the token cannot be read. Nobody is let in then.
        """
        if self._file is not None:
            token = self._file.read_text(encoding="utf-8").strip()
        elif self._token is not None:
            token = self._token.get_secret_value()
        else:
            return True
        scheme, _, sent = (authorization or "").partition(" ")
        # An empty file is no token that an empty header could match.
        return scheme.lower() == "bearer" and hmac.compare_digest(sent.encode(), token.encode()) and bool(token)


@get("/metrics", include_in_schema=False, sync_to_thread=True, opt={"public": True}, name="metrics")
def metrics_endpoint(request: Request[Any, Any, Any]) -> Response[bytes]:
    """All metrics of this process, or of all workers; for those who know TENANTRY_METRICS_TOKEN, where there is one.

    Raises:
        NotAuthenticatedException: the token is missing or wrong.
        UnavailableException: the file that it should be in cannot be read.
    """
    guard: MetricsGuard | None = request.app.state.get("metrics_guard")
    authorization = request.headers.get("authorization")
    try:
        admitted = guard is None or guard.admits(authorization)
    except OSError as error:
        raise UnavailableException("The token of the metrics cannot be read.") from error
    if not admitted:
        raise NotAuthenticatedException(invalid_token=authorization is not None)
    return Response(render_metrics(), media_type=CONTENT_TYPE)
