"""What became of each telling, and telling once more."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import ColumnElement, false, or_, select, update
from uuid_utils.compat import uuid7

from tenantry.domain.webhooks.fanout import line_up, wake
from tenantry.domain.webhooks.jobs import KEPT
from tenantry.domain.webhooks.message import write_body
from tenantry.domain.webhooks.models import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from tenantry.domain.webhooks.schemas import AttemptRead, DeliveryDetail, DeliveryRead
from tenantry.domain.webhooks.sending import PING
from tenantry.events.models import AuditEvent
from tenantry.events.record import record_event
from tenantry.kernel.errors import (
    ConflictException,
    ResourceNotFoundException,
    ValidationFailedException,
    define_problem,
)
from tenantry.kernel.service import Service, create_service_provider, to_struct

if TYPE_CHECKING:
    from typing import Literal

__all__ = (
    "DELIVERY_FINISHED",
    "DELIVERY_PENDING",
    "MOST_REPLAYED",
    "WEBHOOK_DISABLED",
    "DeliveryService",
    "provide_deliveries",
)

WEBHOOK_DISABLED = define_problem(
    "webhook-disabled", 409, "The webhook is disabled", "Nothing is sent to a disabled webhook. Enable it first."
)
DELIVERY_PENDING = define_problem(
    "delivery-pending", 409, "It is in the line already", "The delivery is going to be sent; it need not be replayed."
)
DELIVERY_FINISHED = define_problem(
    "delivery-finished",
    409,
    "It is finished",
    "Only what is still to be sent can be taken out of the line; `deliveryStatus` is what this one is.",
)

MOST_REPLAYED = 10_000
_ATTEMPTS = 50
_FIRST = UUID(int=0)
"""The turn of a ping: whoever tests does not want to wait behind a hundred others."""


class DeliveryService(Service[WebhookDelivery]):
    """Deliveries to the endpoints of one organization."""

    class Repo(SQLAlchemyAsyncRepository[WebhookDelivery]):
        model_type = WebhookDelivery

    repository_type = Repo

    async def endpoint(self, endpoint_id: UUID, *, lock: bool = False) -> WebhookEndpoint:
        """The endpoint; with `lock` before any of its deliveries, as the job that sends them does.

        Raises:
            ResourceNotFoundException: there is none.
        """
        found: WebhookEndpoint | None = await self.repository.session.get(
            WebhookEndpoint, endpoint_id, with_for_update={"key_share": True} if lock else None
        )
        if found is None or found.deleted_at is not None:
            raise ResourceNotFoundException("There is no such webhook.")
        return found

    async def detail(self, endpoint_id: UUID, delivery_id: UUID) -> DeliveryDetail:
        """One delivery with what was sent and what came back.

        Raises:
            ResourceNotFoundException: there is no such delivery of this endpoint.
        """
        session = self.repository.session
        delivery = await self._find(endpoint_id, delivery_id)
        await self.endpoint(endpoint_id)
        event = await session.get_one(AuditEvent, delivery.event_id)
        attempts = await session.scalars(
            select(WebhookAttempt)
            .where(WebhookAttempt.delivery_id == delivery_id)
            .order_by(WebhookAttempt.id.desc())
            .limit(_ATTEMPTS)
        )
        known = to_struct(delivery, DeliveryRead)
        return DeliveryDetail(
            **{name: getattr(known, name) for name in DeliveryRead.__struct_fields__},
            request_body=write_body(event).decode("utf-8"),
            attempts=[to_struct(attempt, AttemptRead) for attempt in attempts],
        )

    async def ping(self, endpoint_id: UUID) -> DeliveryRead:
        """Send a test, once, before everything else.

        Raises:
            ResourceNotFoundException: there is no such endpoint.
            ConflictException: it is disabled.
        """
        session = self.repository.session
        await self._enabled(endpoint_id, lock=True)
        event = await record_event(session, PING, subject=endpoint_id)
        # Whether or not it wants events of this kind.
        await line_up(session, [(endpoint_id, event.id, event.name, _FIRST)])
        await session.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.endpoint_id == endpoint_id, WebhookDelivery.event_id == event.id)
            .values(turn=_FIRST)
        )
        await wake(session, [endpoint_id])
        return to_struct(await self.get_one(endpoint_id=endpoint_id, event_id=event.id), DeliveryRead)

    async def replay(self, endpoint_id: UUID, delivery_id: UUID) -> DeliveryRead:
        """Put one delivery at the end of the line again.

        Raises:
            ResourceNotFoundException: there is no such delivery of this endpoint.
            ConflictException: the endpoint is disabled, or the delivery is in the line.
        """
        session = self.repository.session
        await self._enabled(endpoint_id, lock=True)
        delivery = await self._find(endpoint_id, delivery_id)
        again = [(endpoint_id, delivery.event_id, delivery.event_name, uuid7())]
        if not await line_up(session, again, again=True):
            raise ConflictException("The delivery is in the line already.", problem=DELIVERY_PENDING)
        await wake(session, [endpoint_id])
        await session.refresh(delivery)
        return to_struct(delivery, DeliveryRead)

    async def replay_range(
        self,
        endpoint_id: UUID,
        *,
        since: datetime.datetime,
        until: datetime.datetime | None,
        include: Literal["undelivered", "all"],
    ) -> int:
        """Put the events of a time into the line, in their order, as far as the endpoint wants them; how many.

        Raises:
            ResourceNotFoundException: there is no such endpoint.
            ConflictException: it is disabled.
            ValidationFailedException: these are more than `MOST_REPLAYED`, or it is no longer known what arrived.
        """
        session = self.repository.session
        endpoint = await self._enabled(endpoint_id, lock=True)
        if include == "undelivered" and since < datetime.datetime.now(datetime.UTC) - KEPT:
            raise ValidationFailedException.of(
                "since", f"What arrived is known for {KEPT.days} days: expected a later time, or to include all."
            )
        wanted = (
            select(AuditEvent.id, AuditEvent.name)
            .outerjoin(
                WebhookDelivery,
                (WebhookDelivery.event_id == AuditEvent.id) & (WebhookDelivery.endpoint_id == endpoint_id),
            )
            .where(
                AuditEvent.occurred_at >= since,
                AuditEvent.occurred_at < (until or datetime.datetime.now(datetime.UTC)),
                AuditEvent.name != PING,
                or_(false(), *map(_passes, endpoint.events)),
            )
            .order_by(AuditEvent.id)
            .limit(MOST_REPLAYED + 1)
        )
        if include == "undelivered":
            wanted = wanted.where(
                or_(WebhookDelivery.id.is_(None), WebhookDelivery.status.in_(("failed", "cancelled")))
            )
        events = (await session.execute(wanted)).all()
        if len(events) > MOST_REPLAYED:
            raise ValidationFailedException.of("since", f"Expected a time with at most {MOST_REPLAYED} events in it.")
        count = await line_up(session, [(endpoint_id, event.id, event.name, uuid7()) for event in events], again=True)
        if count:
            await wake(session, [endpoint_id])
        return count

    async def cancel(self, endpoint_id: UUID, delivery_id: UUID) -> DeliveryRead:
        """Take a delivery out of the line, so that those behind it have their turn.

        Raises:
            ResourceNotFoundException: there is no such delivery of this endpoint.
            ConflictException: it is finished.
        """
        session = self.repository.session
        endpoint = await self.endpoint(endpoint_id, lock=True)
        delivery = await self._find(endpoint_id, delivery_id)
        first = await session.scalar(
            select(WebhookDelivery.id)
            .where(WebhookDelivery.endpoint_id == endpoint_id, WebhookDelivery.status == "pending")
            .order_by(WebhookDelivery.turn, WebhookDelivery.id)
            .limit(1)
        )
        taken = await session.scalar(
            update(WebhookDelivery)
            .where(WebhookDelivery.id == delivery_id, WebhookDelivery.status == "pending")
            .values(status="cancelled", finished_at=datetime.datetime.now(datetime.UTC))
            .returning(WebhookDelivery.id)
        )
        await session.refresh(delivery)
        if taken is None and delivery.status == "cancelled":
            return to_struct(delivery, DeliveryRead)
        if taken is None:
            raise ConflictException(
                "The delivery is finished.", problem=DELIVERY_FINISHED, deliveryStatus=delivery.status
            )
        if first == delivery_id:
            # What was behind it need not wait for its next attempt.
            endpoint.next_attempt_at = None
            await self.flush()
            await wake(session, [endpoint_id])
        return to_struct(delivery, DeliveryRead)

    async def _enabled(self, endpoint_id: UUID, *, lock: bool = False) -> WebhookEndpoint:
        endpoint = await self.endpoint(endpoint_id, lock=lock)
        if not endpoint.is_enabled:
            raise ConflictException("The webhook is disabled.", problem=WEBHOOK_DISABLED)
        return endpoint

    async def _find(self, endpoint_id: UUID, delivery_id: UUID) -> WebhookDelivery:
        delivery = await self.get_one_or_none(id=delivery_id, endpoint_id=endpoint_id)
        if delivery is None:
            raise ResourceNotFoundException("There is no such delivery.")
        return delivery


def _passes(wanted: str) -> ColumnElement[bool]:
    if wanted == "*":
        return AuditEvent.name.is_not(None)
    if wanted.endswith(".*"):
        return AuditEvent.name.startswith(wanted.removesuffix("*"), autoescape=True)
    return AuditEvent.name == wanted


provide_deliveries = create_service_provider(DeliveryService)
