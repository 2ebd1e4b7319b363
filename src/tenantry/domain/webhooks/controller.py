"""Routes of webhooks."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, Request, delete, get, patch, post
from litestar.params import Body, FromPath
from litestar.status_codes import HTTP_200_OK

from tenantry.domain.webhooks.schemas import (
    EventTypeRead,
    SecretRotate,
    WebhookCreate,
    WebhookCreated,
    WebhookRead,
    WebhookSecret,
    WebhookUpdate,
)
from tenantry.domain.webhooks.service import LIVE, WebhookService, provide_webhooks
from tenantry.events.definition import current_catalogue
from tenantry.kernel.errors import NotAuthenticatedException
from tenantry.kernel.outbound import Network
from tenantry.kernel.schema import Page, changes
from tenantry.kernel.security import Vault
from tenantry.kernel.service import Injected, ListQuery, create_list_query, to_struct
from tenantry.kernel.settings import Settings
from tenantry.tenancy.guards import requires_feature, requires_permission
from tenantry.tenancy.request import tenant_request

__all__ = ("WebhookController",)


class WebhookController(Controller):
    """Addresses of the organization's own that are told of what happens in it (Standard Webhooks)."""

    path = "/webhooks"
    tags = ["webhooks"]
    dependencies = {"webhooks": provide_webhooks}

    @get(
        "/",
        operation_id="ListWebhooks",
        summary="List webhooks",
        guards=[requires_permission("webhooks:read")],
        dependencies={
            "listing": create_list_query(
                sortable=("created_at", "updated_at", "url"), searched=("url", "description"), default="created_at"
            )
        },
    )
    async def list_webhooks(
        self, webhooks: Injected[WebhookService], listing: Injected[ListQuery]
    ) -> Page[WebhookRead]:
        """The organization's webhooks; their secrets are not shown again."""
        return await webhooks.page(listing, WebhookRead, LIVE)

    @post(
        "/",
        operation_id="CreateWebhook",
        summary="Make a webhook",
        guards=[requires_permission("webhooks:manage"), requires_feature("webhooks")],
    )
    async def create_webhook(
        self,
        request: Request[Any, Any, Any],
        webhooks: Injected[WebhookService],
        data: Annotated[WebhookCreate, Body()],
    ) -> WebhookCreated:
        """Make a webhook. It is told of what happens from now on; the answer has the secret, this once."""
        vault: Vault = request.app.state.vault
        endpoint, secret = await webhooks.add(
            url=data.url,
            events=data.events,
            description=data.description,
            tenant_id=_tenant_id(request),
            vault=vault,
            besides=_besides(request),
        )
        known = to_struct(endpoint, WebhookRead)
        return WebhookCreated(**msgspec.structs.asdict(known), secret=secret)

    @get(
        "/event-types",
        operation_id="ListEventTypes",
        summary="List the kinds of events",
        guards=[requires_permission("webhooks:read")],
    )
    async def list_event_types(self) -> list[EventTypeRead]:
        """Every event that a webhook can be told of, with the JSON Schema of its payload."""
        return [
            EventTypeRead(name=event.name, description=event.description, payload=_json_schema(event.payload))
            for _, event in sorted(current_catalogue().events.items())
        ]

    @get(
        "/{webhook_id:uuid}",
        operation_id="GetWebhook",
        summary="Get a webhook",
        guards=[requires_permission("webhooks:read")],
    )
    async def get_webhook(self, webhooks: Injected[WebhookService], webhook_id: FromPath[UUID]) -> WebhookRead:
        """One webhook, and whether it is well."""
        return to_struct(await webhooks.find(webhook_id), WebhookRead)

    @patch(
        "/{webhook_id:uuid}",
        operation_id="UpdateWebhook",
        summary="Change a webhook",
        guards=[requires_permission("webhooks:manage"), requires_feature("webhooks")],
    )
    async def update_webhook(
        self,
        request: Request[Any, Any, Any],
        webhooks: Injected[WebhookService],
        webhook_id: FromPath[UUID],
        data: Annotated[WebhookUpdate, Body()],
    ) -> WebhookRead:
        """Change what is sent, and nothing else. With another address, or enabled again, it is tried at once."""
        changed = await webhooks.change(webhook_id, changes(data), besides=_besides(request))
        return to_struct(changed, WebhookRead)

    @delete(
        "/{webhook_id:uuid}",
        operation_id="DeleteWebhook",
        summary="Delete a webhook",
        guards=[requires_permission("webhooks:manage")],
    )
    async def delete_webhook(self, webhooks: Injected[WebhookService], webhook_id: FromPath[UUID]) -> None:
        """Delete a webhook, its deliveries, and what was still to be sent."""
        await webhooks.remove(webhook_id)

    @post(
        "/{webhook_id:uuid}/rotate-secret",
        operation_id="RotateWebhookSecret",
        summary="Rotate the secret",
        status_code=HTTP_200_OK,
        guards=[requires_permission("webhooks:manage")],
        opt={"idempotent": True},
    )
    async def rotate_webhook_secret(
        self,
        request: Request[Any, Any, Any],
        webhooks: Injected[WebhookService],
        webhook_id: FromPath[UUID],
        data: Annotated[SecretRotate, Body()],
    ) -> WebhookSecret:
        """A new secret. For `overlap` seconds every message is signed with the old one as well; 0 ends it at once."""
        vault: Vault = request.app.state.vault
        secret, until = await webhooks.rotate_secret(
            webhook_id, overlap=data.overlap, tenant_id=_tenant_id(request), vault=vault
        )
        return WebhookSecret(secret=secret, previous_until=until)


def _tenant_id(request: Request[Any, Any, Any]) -> UUID:
    tenant = tenant_request(request).tenant
    if tenant is None:
        raise NotAuthenticatedException
    return tenant.id


def _besides(request: Request[Any, Any, Any]) -> tuple[Network, ...]:
    settings: Settings = request.app.state.settings
    return tuple(map(ip_network, settings.outbound_networks))


def _json_schema(payload: type[msgspec.Struct]) -> dict[str, Any]:
    schema = msgspec.json.schema(payload)
    found: dict[str, Any] = dict(schema["$defs"][payload.__name__])
    # What the class says of itself is for whoever reads the code.
    found.pop("description", None)
    return found
