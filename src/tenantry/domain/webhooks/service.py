"""Webhook endpoints: where, of what, and with which secret."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import select, update
from sqlalchemy.orm import undefer_group
from uuid_utils.compat import uuid7

from tenantry.domain.webhooks.fanout import filters_for, wake
from tenantry.domain.webhooks.jobs import delete_webhook
from tenantry.domain.webhooks.message import new_secret, secret_text
from tenantry.domain.webhooks.models import WebhookDelivery, WebhookEndpoint
from tenantry.domain.webhooks.sending import secret_purpose
from tenantry.events.definition import current_catalogue
from tenantry.events.record import record_event
from tenantry.kernel.errors import (
    ConflictException,
    ResourceNotFoundException,
    ValidationFailedException,
    define_problem,
)
from tenantry.kernel.outbound import RefusedAddressError, check_url
from tenantry.kernel.security import SealError
from tenantry.kernel.service import Service, changed_fields, create_service_provider
from tenantry.tenancy.quotas import use_quota

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from tenantry.kernel.outbound import Network
    from tenantry.kernel.security import Vault

__all__ = ("LIVE", "MOST_WEBHOOKS", "TOO_MANY_WEBHOOKS", "WebhookService", "provide_webhooks")

MOST_WEBHOOKS = 50
"""Of an organization: every event is lined up for each that wants it."""

LIVE = WebhookEndpoint.deleted_at.is_(None)
"""Those that are not to be deleted."""

TOO_MANY_WEBHOOKS = define_problem(
    "too-many-webhooks",
    409,
    "Too many webhooks",
    "An organization has so many webhooks at most (`allowed`). Delete one, or let one be told of more events.",
)


class WebhookService(Service[WebhookEndpoint]):
    """Endpoints of one organization."""

    class Repo(SQLAlchemyAsyncRepository[WebhookEndpoint]):
        model_type = WebhookEndpoint

    repository_type = Repo

    async def add(
        self,
        *,
        url: str,
        events: list[str],
        description: str | None,
        tenant_id: UUID,
        vault: Vault,
        besides: Iterable[Network],
    ) -> tuple[WebhookEndpoint, str]:
        """A new endpoint, and its secret in the clear.

        Raises:
            ValidationFailedException: the address can never be reached, or there is no such event.
            ConflictException: there are `MOST_WEBHOOKS`.
            PermissionDeniedException: the plan allows no more of them.
        """
        session = self.repository.session
        self._check(url, events, besides)
        # Two at once may make one too many: what is meant to be bounded is the work for each event, not the number.
        if await self.count(LIVE) >= MOST_WEBHOOKS:
            raise ConflictException(
                f"There are {MOST_WEBHOOKS} webhooks already.", problem=TOO_MANY_WEBHOOKS, allowed=MOST_WEBHOOKS
            )
        await use_quota(session, "webhook_endpoints")
        endpoint_id, secret = uuid7(), new_secret()
        endpoint = await self.create(
            WebhookEndpoint(
                id=endpoint_id,
                url=url,
                events=_unique(events),
                description=description,
                secret=vault.seal(secret, purpose=secret_purpose(tenant_id), owner=endpoint_id),
            )
        )
        await record_event(session, "webhook.created", subject=endpoint_id)
        return endpoint, secret_text(secret)

    async def find(self, endpoint_id: UUID, *, lock: bool = False) -> WebhookEndpoint:
        """An endpoint; with `lock` before any of its deliveries, as the job that sends them does.

        Raises:
            ResourceNotFoundException: there is none.
        """
        wanted = select(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id, LIVE)
        if lock:
            wanted = wanted.options(undefer_group("secret")).with_for_update(key_share=True)
        found: WebhookEndpoint | None = await self.repository.session.scalar(wanted)
        if found is None:
            raise ResourceNotFoundException("There is no such webhook.")
        return found

    async def change(
        self, endpoint_id: UUID, changes: dict[str, Any], *, besides: Iterable[Network]
    ) -> WebhookEndpoint:
        """Change what is in `changes`. Where it goes to another address, or is enabled, it is sent to at once.

        Raises:
            ResourceNotFoundException: there is no such endpoint.
            ValidationFailedException: as `add`.
        """
        session = self.repository.session
        self._check(changes.get("url"), changes.get("events", []), besides)
        if "events" in changes:
            changes["events"] = _unique(changes["events"])
        endpoint = await self.find(endpoint_id, lock=True)
        changed = changed_fields(endpoint, changes)
        if not changed:
            return endpoint
        for name, value in changes.items():
            setattr(endpoint, name, value)
        if endpoint.is_enabled and {"url", "is_enabled"} & set(changed):
            endpoint.failing_since = endpoint.next_attempt_at = endpoint.disabled_reason = None
            # Other attempts are before it than those that it has behind it.
            await session.execute(
                update(WebhookDelivery)
                .where(WebhookDelivery.endpoint_id == endpoint_id, WebhookDelivery.status == "pending")
                .values(attempt_count=0)
            )
            await wake(session, [endpoint_id])
        await self.flush()
        await record_event(session, "webhook.updated", subject=endpoint_id, payload={"fields": changed})
        return endpoint

    async def remove(self, endpoint_id: UUID) -> None:
        """Delete an endpoint, and what is in its line: nobody sees it from now on, and a job does the rest.

        Raises:
            ResourceNotFoundException: there is no such endpoint.
        """
        endpoint = await self.find(endpoint_id, lock=True)
        endpoint.is_enabled, endpoint.deleted_at = False, datetime.datetime.now(datetime.UTC)
        await self.flush()
        await delete_webhook.enqueue(self.repository.session, endpoint_id=endpoint_id)
        await record_event(self.repository.session, "webhook.deleted", subject=endpoint_id)

    async def rotate_secret(
        self, endpoint_id: UUID, *, overlap: int, tenant_id: UUID, vault: Vault
    ) -> tuple[str, datetime.datetime | None]:
        """A new secret, in the clear; the one before goes on signing as well for `overlap` seconds, until when.

        Raises:
            ResourceNotFoundException: there is no such endpoint.
        """
        session = self.repository.session
        endpoint, purpose = await self.find(endpoint_id, lock=True), secret_purpose(tenant_id)
        if overlap and not _is_readable(endpoint, vault, purpose):
            # Nothing can be signed with it, so nobody waits for it.
            overlap = 0
        secret = new_secret()
        now = datetime.datetime.now(datetime.UTC)
        endpoint.previous_until = now + datetime.timedelta(seconds=overlap) if overlap else None
        endpoint.previous_secret = endpoint.secret if overlap else None
        endpoint.secret = vault.seal(secret, purpose=purpose, owner=endpoint_id)
        await self.flush()
        await record_event(session, "webhook.secret_rotated", subject=endpoint_id)
        return secret_text(secret), endpoint.previous_until

    @staticmethod
    def _check(url: str | None, events: Sequence[str], besides: Iterable[Network]) -> None:
        if url is not None:
            try:
                check_url(url, besides)
            except RefusedAddressError as error:
                raise ValidationFailedException.of("url", str(error)) from None
        known = {wanted for name in current_catalogue().events for wanted in filters_for(name)}
        for index, wanted in enumerate(events):
            if wanted not in known:
                raise ValidationFailedException.of(
                    f"events[{index}]",
                    "There is no such event; GET /api/webhooks/event-types lists them. Expected a name, one such as "
                    "'team.*', or '*'.",
                )


def _is_readable(endpoint: WebhookEndpoint, vault: Vault, purpose: str) -> bool:
    try:
        vault.unseal(endpoint.secret, purpose=purpose, owner=endpoint.id)
    except SealError:
        return False
    return True


def _unique(events: list[str]) -> list[str]:
    return sorted(set(events))


provide_webhooks = create_service_provider(WebhookService)
