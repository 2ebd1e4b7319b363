"""Putting events into the lines of the endpoints that are to be told, in the transaction that records them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select, type_coerce
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.types import Text
from uuid_utils.compat import uuid7

from tenantry.domain.webhooks.jobs import send_webhooks
from tenantry.domain.webhooks.models import WebhookDelivery, WebhookEndpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.events.definition import RecordedEvent

__all__ = ("filters_for", "line_up", "tell_webhooks", "wake")

_BATCH = 1000
_EVERY = "*"


def filters_for(event_name: str) -> list[str]:
    """The filters that let an event of this name pass."""
    return [event_name, f"{event_name.partition('.')[0]}.*", _EVERY]


async def tell_webhooks(session: AsyncSession, event: RecordedEvent) -> None:
    """Line an event up for every endpoint that wants it. One question, and nothing more where none does."""
    # Not as a job: an organization without webhooks, or whose webhooks want other events, is to pay nothing for them.
    wanting = list(
        await session.scalars(
            select(WebhookEndpoint.id)
            .where(
                WebhookEndpoint.is_enabled,
                WebhookEndpoint.events.overlap(type_coerce(filters_for(event.name), ARRAY(Text))),
            )
            .order_by(WebhookEndpoint.id)
            # What the rows' foreign keys ask for anyway; here, an endpoint that is being deleted is passed over.
            .with_for_update(read=True, key_share=True)
        )
    )
    if not wanting:
        return
    await line_up(session, [(endpoint_id, event.id, event.name, event.id) for endpoint_id in wanting])
    await wake(session, wanting)


async def line_up(
    session: AsyncSession, deliveries: Sequence[tuple[UUID, UUID, str, UUID]], *, again: bool = False
) -> int:
    """Put events into endpoints' lines: (endpoint, event, its name, turn); how many were.

    What is in the line already stays where it is; what is delivered, or was given up, is put into it `again` or left.
    """
    count = 0
    for start in range(0, len(deliveries), _BATCH):
        rows: list[dict[str, Any]] = [
            {
                "id": uuid7(),
                "endpoint_id": endpoint_id,
                "event_id": event_id,
                "event_name": name,
                "turn": turn,
                "status": "pending",
                "attempt_count": 0,
                "created_at": func.now(),
                "updated_at": func.now(),
            }
            for endpoint_id, event_id, name, turn in deliveries[start : start + _BATCH]
        ]
        statement = insert(WebhookDelivery).values(rows)
        if again:
            statement = statement.on_conflict_do_update(
                constraint="uq_webhook_delivery_endpoint_id_event_id",
                set_={
                    "status": "pending",
                    "attempt_count": 0,
                    "turn": statement.excluded.turn,
                    "finished_at": None,
                    "updated_at": func.now(),
                },
                where=WebhookDelivery.status != "pending",
            )
        else:
            statement = statement.on_conflict_do_nothing(constraint="uq_webhook_delivery_endpoint_id_event_id")
        count += len((await session.execute(statement.returning(WebhookDelivery.id))).all())
    return count


async def wake(session: AsyncSession, endpoints: Iterable[UUID]) -> None:
    """Have what is in these lines sent."""
    for endpoint_id in endpoints:
        await send_webhooks.enqueue(session, endpoint_id=endpoint_id)
