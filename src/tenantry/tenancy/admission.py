"""Admission: how many requests of one tenant a process works on at a time, and how large an answer may be.

A request is at work from here until its answer begins. What comes after that is up to the client, who may be slow: of
an answer in one piece the server takes charge, and an answer in pieces has a place of its own, if it is a file
(`opt={"transfer": True}`), or a seat, if it is endless (`opt={"endless": True}`). Any other answer in pieces keeps its
request at work until it is out.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from prometheus_client import Gauge

from tenantry.kernel.errors import TooManyRequestsException, ValidationFailedException, define_problem
from tenantry.kernel.http.problem import send_problem
from tenantry.kernel.steps import timed
from tenantry.tenancy.bulkheads import TENANT_BUSY, Bulkhead
from tenantry.tenancy.processor import ProcessorTime

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from litestar.types import HTTPScope, Message, Send

    from tenantry.kernel.settings import Settings
    from tenantry.tenancy.context import TenantContext

__all__ = ("Admission", "Visit")

RESPONSE_TOO_LARGE = define_problem(
    "response-too-large",
    422,
    "Answer too large",
    "The answer would be larger than `limit`, in bytes. Ask for less of it: a smaller `pageSize`, or a filter.",
)

_SAFE = frozenset({"GET", "HEAD"})
_BACK = 5
"""Seconds after which whoever fetches too much at a time may come back: files take longer than requests."""

_at_work = Gauge(
    "tenantry_requests_at_work",
    "Requests of organizations that are being worked on, by plan.",
    ("plan",),
    multiprocess_mode="livesum",
)


class Admission:
    """Who is let in, of one process."""

    def __init__(
        self,
        *,
        requests: int,
        share: int,
        processor_share: float = 1.0,
        queue: int,
        patience: float,
        transfers: int,
        response_limit: int,
    ) -> None:
        """At most `requests` at work, and `share` of one tenant whose plan says nothing; `transfers` of each tenant.

        A tenant that takes more than `processor_share` of the event loop's time, from 0 to 1, gives way to others: of
        it one request at a time is worked on.
        `queue` of a tenant's may wait, for `patience` seconds. `response_limit` is in bytes.
        """
        self._requests = Bulkhead("requests", requests, queue=queue, patience=patience)
        self._share = share
        self._processor = ProcessorTime(processor_share) if processor_share < 1 else None
        self._transfers: dict[str, int] = {}
        self._most_transfers = transfers
        self._response_limit = response_limit
        self._gauges: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {}

    @classmethod
    def of(cls, settings: Settings) -> Admission | None:
        """As the settings say; None where they switch it off."""
        if not settings.bulkheads:
            return None
        return cls(
            requests=settings.concurrent_requests,
            share=settings.tenant_concurrent_requests,
            processor_share=settings.tenant_processor_share / 100,
            queue=settings.tenant_waiting,
            patience=settings.tenant_patience,
            transfers=settings.tenant_transfers,
            response_limit=settings.response_limit,
        )

    def at_work(self, tenant: TenantContext) -> int:
        """How many of a tenant's requests are."""
        return self._requests.held(tenant.schema)

    def waiting(self, tenant: TenantContext) -> int:
        """How many of them wait to be."""
        return self._requests.waiting(tenant.schema)

    async def enter(self, tenant: TenantContext, scope: HTTPScope, send: Send) -> Visit:
        """Wait until the request may be worked on; `leave` the visit, whatever happens.

        Raises:
            TenantBusyException: too many of the tenant's are at work, and wait.
            ProcessBusyException: all tenants' together are too many.
            TooManyRequestsException: the tenant fetches too many files at a time.
        """
        opt = scope["route_handler"].opt
        share = tenant.plan.concurrent_requests or self._share
        if self._processor is not None and self._processor.comes(tenant.schema):
            share = 1
        # By the schema's name: the hash of text is kept, that of a UUID is computed each time.
        if not self._requests.take(tenant.schema, share):
            await self._requests.wait(tenant.schema, share, plan=tenant.plan.slug)
        spend = None if self._processor is None else partial(self._processor.spend, tenant.schema)
        visit = Visit(self, tenant, scope, send, spend, in_pieces="endless" in opt or "transfer" in opt)
        if "transfer" in opt:
            try:
                self._begin_transfer(tenant)
            except TooManyRequestsException:
                visit.leave()
                raise
            visit.is_transfer = True
        return visit

    def count(self, plan: str) -> Callable[[], None]:
        """Count one in; what is returned counts it out."""
        try:
            up, down = self._gauges[plan]
        except KeyError:
            gauge = _at_work.labels(plan)
            up, down = self._gauges[plan] = gauge.inc, gauge.dec
        up()
        return down

    def free(self, key: str) -> None:
        self._requests.give(key)

    def _begin_transfer(self, tenant: TenantContext) -> None:
        under_way = self._transfers.get(tenant.schema, 0)
        if under_way >= self._most_transfers:
            raise TooManyRequestsException(
                "The organization fetches as many files as it may at a time.",
                problem=TENANT_BUSY,
                retry_after=_BACK,
                resource="transfers",
                limit=self._most_transfers,
            )
        self._transfers[tenant.schema] = under_way + 1

    def end_transfer(self, key: str) -> None:
        left = self._transfers[key] - 1
        if left:
            self._transfers[key] = left
        else:
            del self._transfers[key]

    def is_too_large(self, body: bytes) -> bool:
        return len(body) > self._response_limit

    @property
    def response_limit(self) -> int:
        return self._response_limit


class Visit:
    """One request that was let in."""

    __slots__ = (
        "_admission",
        "_in_pieces",
        "_key",
        "_left",
        "_scope",
        "_send",
        "_spend",
        "_start",
        "_uncount",
        "is_transfer",
    )

    def __init__(
        self,
        admission: Admission,
        tenant: TenantContext,
        scope: HTTPScope,
        send: Send,
        spend: Callable[[float], None] | None,
        *,
        in_pieces: bool,
    ) -> None:
        self._admission = admission
        self._key = tenant.schema
        self._scope = scope
        self._send = send
        self._spend = spend
        self._in_pieces = in_pieces
        self._start: Message | None = None
        self._left = False
        self._uncount = admission.count(tenant.plan.slug)
        self.is_transfer = False

    async def work(self, request: Coroutine[Any, Any, None]) -> None:
        """Do what is to be done, on the tenant's account."""
        await (request if self._spend is None else timed(request, self._spend))

    async def send(self, message: Message) -> None:
        """The ASGI `send` of the request: gives its place away when the answer begins.

        The first message waits for the second, which says whether the answer is in one piece, and how large.
        """
        if message["type"] == "http.response.start":
            self._start = message
            return
        if self._start is not None:
            start, self._start = self._start, None
            whole: Any = message
            if not whole.get("more_body", False):
                self._free()
                body = whole.get("body", b"")
                # Of a change, everything has happened: to call it wrong would have it sent again.
                if self._scope["method"] in _SAFE and self._admission.is_too_large(body):
                    await send_problem(self._scope, self._send, self._too_large())
                    return
            elif self._in_pieces:
                self._free()
            await self._send(start)
        await self._send(message)

    def leave(self) -> None:
        """The request is over, one way or another."""
        self._free()
        if self.is_transfer:
            self.is_transfer = False
            self._admission.end_transfer(self._key)

    def _free(self) -> None:
        if not self._left:
            self._left = True
            self._uncount()
            self._admission.free(self._key)

    def _too_large(self) -> ValidationFailedException:
        limit = self._admission.response_limit
        return ValidationFailedException(
            f"The answer would be larger than {limit} bytes.", problem=RESPONSE_TOO_LARGE, limit=limit
        )
