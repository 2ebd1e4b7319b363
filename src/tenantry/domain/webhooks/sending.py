"""Sending what is in an endpoint's line, in order, one request at a time and no transaction open meanwhile.

What is first in the line is tried until it succeeds or has no attempt left, and holds up what is behind it: that is
what order means. An endpoint that fails is left in peace for longer each time (`BACKOFF`), and is disabled when it has
done nothing else for `DISABLE_AFTER`.

Of an endpoint's jobs one sends: it writes itself into the endpoint's row, and every step locks that row. A job that
finds another's name there has nothing to do, since that one looks into the line once more, under the lock, before it
strikes its name out. The name is the job's id, the same in each of its attempts: whoever continues for a worker that
was killed finds its own name, and goes on at once.
"""

from __future__ import annotations

import datetime
import email.utils
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import undefer_group
from uuid_utils.compat import uuid7

from tenantry.domain.webhooks.message import headers_of, write_body
from tenantry.domain.webhooks.models import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from tenantry.events.models import AuditEvent
from tenantry.events.record import SYSTEM, record_event
from tenantry.kernel.outbound import Answer, OutboundError
from tenantry.kernel.security import SealError
from tenantry.kernel.tracing import outgoing_traceparent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.jobs.definition import Transactions
    from tenantry.kernel.outbound import OutboundClient
    from tenantry.kernel.security import Vault

__all__ = ("BACKOFF", "DISABLE_AFTER", "PING", "Line", "secret_purpose")

PING = "webhook.pinged"
"""Is tried once, at once, and holds up nothing."""


def secret_purpose(tenant_id: UUID) -> str:
    """For the vault. Of the organization: a copy of it under another id is not to sign in the original's name."""
    return f"webhook-secret:{tenant_id.hex}"


_MINUTE, _HOUR = 60.0, 3600.0
BACKOFF = (5.0, _MINUTE, 5 * _MINUTE, 30 * _MINUTE, *(hours * _HOUR for hours in (2, 5, 10, 14, 20, 24)))
"""Seconds after the first attempt, the second, …: three days together. At random a tenth more or less."""

DISABLE_AFTER = datetime.timedelta(days=5)
"""Of nothing but failures."""

_LEASE = datetime.timedelta(seconds=200)
"""Longer than a run of the job may take: after that nobody has the line any more."""
_RUN = 10.0
"""Seconds after which a run lets others have its place, and goes on later."""
_SLOW = 2.0
"""Seconds of one request after which it does so at once: who answers slowly is not to keep others waiting."""

_LONGEST_WISH = 24 * _HOUR
"""Of `Retry-After`."""
_BODY, _HEADERS, _HEADER, _ALL_HEADERS = 4096, 50, 1000, 8000
"""Bytes of an answer's body that are kept, headers, characters of one and of all of them."""

_GONE = 410

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Task:
    """What is to be sent now."""

    delivery_id: UUID
    event_id: UUID
    url: str
    body: bytes
    secrets: tuple[bytes, ...]
    """Sealed."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    task: _Task
    started_at: datetime.datetime
    duration: float
    headers: Mapping[str, str]
    answer: Answer | None
    error: str | None

    @property
    def is_success(self) -> bool:
        return self.answer is not None and 200 <= self.answer.status < 300


class Line:
    """One endpoint's line, as one job works it off."""

    def __init__(
        self,
        *,
        endpoint_id: UUID,
        tenant_id: UUID,
        job_id: UUID,
        open: Transactions,  # noqa: A002
        client: OutboundClient,
        vault: Vault,
        come_back: Callable[[AsyncSession, datetime.datetime | None], Awaitable[object]],
    ) -> None:
        """`come_back` enqueues another job for the line, to begin at once or at a time."""
        self._endpoint_id = endpoint_id
        self._purpose = secret_purpose(tenant_id)
        self._job_id = job_id
        self._open = open
        self._client = client
        self._vault = vault
        self._come_back = come_back
        self._run_id: UUID = uuid7()
        self._ends_at = time.monotonic() + _RUN

    async def work_off(self) -> int:
        """Send what may be sent now; how many requests that were.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database is away. What was sent meanwhile is sent again later.
        """
        count = 0
        async with self._open() as session:
            task = await self._next(session)
        while task is not None:
            outcome = await self._send(task)
            count += 1
            if outcome.duration > _SLOW:
                self._ends_at = 0.0
            async with self._open() as session:
                task = await self._settle(session, outcome)
        return count

    async def _next(self, session: AsyncSession) -> _Task | None:
        locked = await self._lock(session)
        if locked is None:
            return None
        endpoint, now = locked
        is_anothers = endpoint.worker_job not in (None, self._job_id)
        if is_anothers and endpoint.worker_until is not None and endpoint.worker_until > now:
            return None
        return await self._head(session, endpoint, now)

    async def _lock(self, session: AsyncSession) -> tuple[WebhookEndpoint, datetime.datetime] | None:
        # Events may be lined up meanwhile (their foreign key asks for no more than the key to stay). The time is the
        # database's clock's, which also says when a job is due: by another one it could come too early.
        row = (
            await session.execute(
                select(WebhookEndpoint, func.clock_timestamp())
                .where(WebhookEndpoint.id == self._endpoint_id)
                .options(undefer_group("secret"))
                .with_for_update(of=WebhookEndpoint, key_share=True)
            )
        ).one_or_none()
        return None if row is None else (row[0], row[1])

    async def _head(self, session: AsyncSession, endpoint: WebhookEndpoint, now: datetime.datetime) -> _Task | None:
        """What is first, with the endpoint's row held until it is sent; None, and the row let go, where nothing is."""
        endpoint.worker_job = endpoint.worker_run = endpoint.worker_until = None
        # What was just settled is not first any more.
        await session.flush()
        if not endpoint.is_enabled:
            return None
        first = (
            select(WebhookDelivery.id, AuditEvent)
            .join(AuditEvent, AuditEvent.id == WebhookDelivery.event_id)
            .where(WebhookDelivery.endpoint_id == endpoint.id, WebhookDelivery.status == "pending")
            .order_by(WebhookDelivery.turn, WebhookDelivery.id)
            .limit(1)
        )
        if endpoint.next_attempt_at is not None and endpoint.next_attempt_at > now:
            # It is left in peace, but for whoever tests it.
            first = first.where(WebhookDelivery.event_name == PING)
        found = (await session.execute(first)).one_or_none()
        if found is None:
            return None
        if time.monotonic() >= self._ends_at:
            await self._come_back(session, None)
            return None
        endpoint.worker_job, endpoint.worker_run, endpoint.worker_until = self._job_id, self._run_id, now + _LEASE
        await session.flush()
        delivery_id, event = found
        secrets = [endpoint.secret]
        if (
            endpoint.previous_secret is not None
            and endpoint.previous_until is not None
            and endpoint.previous_until > now
        ):
            secrets.append(endpoint.previous_secret)
        return _Task(delivery_id, event.id, endpoint.url, write_body(event), tuple(secrets))

    async def _send(self, task: _Task) -> _Outcome:
        started_at, begun = datetime.datetime.now(datetime.UTC), time.monotonic()
        headers: Mapping[str, str] = {}
        answer, error = None, None
        try:
            secrets = [
                self._vault.unseal(secret, purpose=self._purpose, owner=self._endpoint_id) for secret in task.secrets
            ]
            headers = headers_of(task.event_id, task.body, sent_at=started_at, signed_with=secrets)
            if (traceparent := outgoing_traceparent()) is not None:
                headers = {**headers, "traceparent": traceparent}
            answer = await self._client.request("POST", task.url, headers=headers, content=task.body)
        except OutboundError as failure:
            error = str(failure)
        except SealError:
            # It came with an archive of another organization, or a key was thrown away.
            error = "The secret cannot be read here any more: rotate it."
            _log.warning("a webhook's secret cannot be unsealed", endpoint=str(self._endpoint_id))
        return _Outcome(task, started_at, time.monotonic() - begun, headers, answer, error)

    async def _settle(self, session: AsyncSession, outcome: _Outcome) -> _Task | None:
        """Write down what came of it; what is to be sent next."""
        locked = await self._lock(session)
        if locked is None:
            return None
        endpoint, now = locked
        if endpoint.worker_run != self._run_id:
            # It took so long that somebody else has the line by now, and sends this once more.
            return None
        delivery = await session.get(WebhookDelivery, outcome.task.delivery_id)
        if delivery is None:
            return await self._head(session, endpoint, now)
        session.add(_attempt(outcome))
        if not outcome.is_success and outcome.task.url != endpoint.url:
            # It goes elsewhere by now: what the address before has answered is not held against this one.
            return await self._head(session, endpoint, now)
        delivery.attempt_count += 1
        if outcome.is_success:
            _finish(delivery, "delivered", now)
            endpoint.failing_since = endpoint.next_attempt_at = None
        else:
            await self._fail(session, endpoint, delivery, outcome.answer, now)
        return await self._head(session, endpoint, now)

    async def _fail(
        self,
        session: AsyncSession,
        endpoint: WebhookEndpoint,
        delivery: WebhookDelivery,
        answer: Answer | None,
        now: datetime.datetime,
    ) -> None:
        endpoint.failing_since = endpoint.failing_since or now
        if delivery.event_name == PING:
            _finish(delivery, "failed", now)
            return
        if delivery.attempt_count > len(BACKOFF):
            # What is behind it has its turn, at once.
            _finish(delivery, "failed", now)
        if answer is not None and answer.status == _GONE:
            await _disable(session, endpoint, "gone", "It has answered 410 Gone.")
        elif now - endpoint.failing_since >= DISABLE_AFTER:
            await _disable(session, endpoint, "failing", f"Nothing could be delivered for {DISABLE_AFTER.days} days.")
        elif delivery.status == "pending":
            pause = max(BACKOFF[delivery.attempt_count - 1] * random.uniform(0.9, 1.1), _wish(answer, now))
            endpoint.next_attempt_at = now + datetime.timedelta(seconds=pause)
            await self._come_back(session, endpoint.next_attempt_at)


async def _disable(
    session: AsyncSession, endpoint: WebhookEndpoint, reason: Literal["failing", "gone"], text: str
) -> None:
    endpoint.is_enabled, endpoint.disabled_reason = False, text
    endpoint.next_attempt_at = None
    await session.flush()
    # Not whoever did what the endpoint was to be told of.
    await record_event(session, "webhook.disabled", subject=endpoint.id, payload={"reason": reason}, actor=SYSTEM)


def _finish(delivery: WebhookDelivery, status: Literal["delivered", "failed"], now: datetime.datetime) -> None:
    # Somebody may have taken it out of the line while it was on its way; that it arrived is true nevertheless.
    if status == "delivered" or delivery.status == "pending":
        delivery.status, delivery.finished_at = status, now


def _attempt(outcome: _Outcome) -> WebhookAttempt:
    answer = outcome.answer
    return WebhookAttempt(
        delivery_id=outcome.task.delivery_id,
        started_at=outcome.started_at,
        duration_ms=round(outcome.duration * 1000),
        url=outcome.task.url,
        request_headers=dict(outcome.headers),
        status_code=None if answer is None else answer.status,
        response_headers=None if answer is None else _kept_headers(answer),
        response_body=None if answer is None else _kept_text(answer.body[:_BODY].decode("utf-8", "replace")),
        error=outcome.error,
    )


def _kept_headers(answer: Answer) -> dict[str, str]:
    kept: dict[str, str] = {}
    for name, value in answer.headers[:_HEADERS]:
        key = name.lower()[:_HEADER]
        kept[key] = _kept_text(f"{kept[key]}, {value}" if key in kept else value)[:_HEADER]
        if sum(map(len, kept)) + sum(map(len, kept.values())) > _ALL_HEADERS:
            del kept[key]
            break
    return kept


def _kept_text(text: str) -> str:
    # The one character that PostgreSQL does not store.
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _wish(answer: Answer | None, now: datetime.datetime) -> float:
    """Seconds that the answer asks for (`Retry-After`, RFC 9110 §10.2.3), a day at most."""
    if answer is None:
        return 0.0
    text = next((value for name, value in answer.headers if name.lower() == "retry-after"), "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:10])
    else:
        try:
            seconds = (email.utils.parsedate_to_datetime(text) - now).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), _LONGEST_WISH)
