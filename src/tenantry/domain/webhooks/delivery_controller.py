"""Routes of a webhook's deliveries."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from litestar import Controller, get, post
from litestar.params import Body, FromPath, QueryParameter
from litestar.status_codes import HTTP_200_OK, HTTP_202_ACCEPTED

from tenantry.domain.webhooks.deliveries import DeliveryService, provide_deliveries
from tenantry.domain.webhooks.models import WebhookDelivery
from tenantry.domain.webhooks.schemas import (
    DeliveriesReplay,
    DeliveryDetail,
    DeliveryRead,
    DeliveryStatus,
    WebhookReplayed,
)
from tenantry.kernel.schema import Page, in_utc
from tenantry.kernel.service import Injected, ListQuery, create_list_query
from tenantry.tenancy.guards import requires_feature, requires_permission

__all__ = ("WebhookDeliveryController",)

_Status = Annotated[DeliveryStatus | None, QueryParameter(description="Deliveries of this status.")]
_EventName = Annotated[
    str | None,
    QueryParameter(name="eventName", min_length=1, max_length=100, description="Of events of this name."),
]


class WebhookDeliveryController(Controller):
    """What a webhook was told, and what it answered."""

    path = "/webhooks/{webhook_id:uuid}"
    tags = ["webhooks"]
    dependencies = {"deliveries": provide_deliveries}

    @get(
        "/deliveries",
        operation_id="ListWebhookDeliveries",
        summary="List deliveries",
        guards=[requires_permission("webhooks:read")],
        dependencies={
            "listing": create_list_query(
                sortable=("created_at", "finished_at", "event_name", "status", "turn"),
                searched=("event_name",),
                default="created_at",
                descending=True,
                others=("status", "eventName"),
            )
        },
    )
    async def list_deliveries(
        self,
        deliveries: Injected[DeliveryService],
        listing: Injected[ListQuery],
        webhook_id: FromPath[UUID],
        status: _Status = None,
        event_name: _EventName = None,
    ) -> Page[DeliveryRead]:
        """What the webhook was told, the newest first, for thirty days; by `turn`, pending ones are as they come."""
        await deliveries.endpoint(webhook_id)
        wanted = [WebhookDelivery.endpoint_id == webhook_id]
        if status is not None:
            wanted.append(WebhookDelivery.status == status)
        if event_name is not None:
            wanted.append(WebhookDelivery.event_name == event_name)
        return await deliveries.page(listing, DeliveryRead, *wanted)

    @get(
        "/deliveries/{delivery_id:uuid}",
        operation_id="GetWebhookDelivery",
        summary="Get a delivery",
        guards=[requires_permission("webhooks:read")],
    )
    async def get_delivery(
        self, deliveries: Injected[DeliveryService], webhook_id: FromPath[UUID], delivery_id: FromPath[UUID]
    ) -> DeliveryDetail:
        """One delivery: what was sent, and what came back each time."""
        return await deliveries.detail(webhook_id, delivery_id)

    @post(
        "/deliveries/{delivery_id:uuid}/replay",
        operation_id="ReplayWebhookDelivery",
        summary="Replay a delivery",
        status_code=HTTP_202_ACCEPTED,
        guards=[requires_permission("webhooks:manage"), requires_feature("webhooks")],
        opt={"idempotent": True},
    )
    async def replay_delivery(
        self, deliveries: Injected[DeliveryService], webhook_id: FromPath[UUID], delivery_id: FromPath[UUID]
    ) -> DeliveryRead:
        """Send it again, after what is in the line: the same message, with the same `webhook-id`."""
        return await deliveries.replay(webhook_id, delivery_id)

    @post(
        "/deliveries/{delivery_id:uuid}/cancel",
        operation_id="CancelWebhookDelivery",
        summary="Take a delivery out of the line",
        status_code=HTTP_200_OK,
        guards=[requires_permission("webhooks:manage")],
    )
    async def cancel_delivery(
        self, deliveries: Injected[DeliveryService], webhook_id: FromPath[UUID], delivery_id: FromPath[UUID]
    ) -> DeliveryRead:
        """Do not send it, nor wait for it: what is behind it has its turn. It can be replayed."""
        return await deliveries.cancel(webhook_id, delivery_id)

    @post(
        "/replay",
        operation_id="ReplayWebhook",
        summary="Replay a time",
        status_code=HTTP_202_ACCEPTED,
        guards=[requires_permission("webhooks:manage"), requires_feature("webhooks")],
        opt={"idempotent": True},
    )
    async def replay_range(
        self,
        deliveries: Injected[DeliveryService],
        webhook_id: FromPath[UUID],
        data: Annotated[DeliveriesReplay, Body()],
    ) -> WebhookReplayed:
        """Send what happened in a time and matches the webhook's events, in order: also what it never heard of, since
        it was disabled or not yet made. At most 10,000 events at once."""
        since, until = in_utc("since", data.since), in_utc("until", data.until)
        count = await deliveries.replay_range(webhook_id, since=since, until=until, include=data.include)
        return WebhookReplayed(count=count)

    @post(
        "/ping",
        operation_id="PingWebhook",
        summary="Send a test",
        status_code=HTTP_202_ACCEPTED,
        guards=[requires_permission("webhooks:manage"), requires_feature("webhooks")],
        opt={"idempotent": True},
    )
    async def ping_webhook(self, deliveries: Injected[DeliveryService], webhook_id: FromPath[UUID]) -> DeliveryRead:
        """Send `webhook.pinged` once, before everything else; the delivery says what came of it."""
        return await deliveries.ping(webhook_id)
