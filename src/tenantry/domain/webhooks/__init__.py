"""Webhooks: the organization's own systems are told of what happens in it, in order, signed, for days if need be."""

from tenantry.domain.identity.users.queries import HoldersOf
from tenantry.domain.webhooks.controller import WebhookController
from tenantry.domain.webhooks.dashboard import WEBHOOKS_PART
from tenantry.domain.webhooks.delivery_controller import WebhookDeliveryController
from tenantry.domain.webhooks.fanout import tell_webhooks
from tenantry.domain.webhooks.jobs import delete_webhook, send_webhooks, tend_webhooks
from tenantry.domain.webhooks.models import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from tenantry.domain.webhooks.schemas import WebhookChanged, WebhookDisabled
from tenantry.domain.webhooks.service import LIVE
from tenantry.events.definition import Event
from tenantry.events.notification import NotificationKind
from tenantry.jobs.schedule import Schedule
from tenantry.kernel.feature import Feature, Permission, Quota, Switch
from tenantry.tenancy.entitlements import rows_of

FEATURE = Feature(
    name="webhooks",
    controllers=(WebhookController, WebhookDeliveryController),
    models=(WebhookEndpoint, WebhookDelivery, WebhookAttempt),
    permissions=(
        Permission("webhooks:read", "See webhooks, what they were told and what they answered."),
        Permission("webhooks:manage", "Make and change webhooks, test them, and have events sent again."),
    ),
    identifiers={"webhook_id": WebhookEndpoint, "delivery_id": WebhookDelivery},
    jobs=(send_webhooks, delete_webhook, tend_webhooks),
    schedules=(Schedule(tend_webhooks, "30 2 * * *", jitter=7200),),
    events=(
        Event("webhook.created", "A webhook was made."),
        Event("webhook.updated", "A webhook was changed.", WebhookChanged),
        Event("webhook.deleted", "A webhook was deleted."),
        Event("webhook.secret_rotated", "A webhook was given a new secret."),
        Event("webhook.pinged", "A webhook was sent a test."),
        Event("webhook.disabled", "A webhook failed for too long, or said that it is gone.", WebhookDisabled),
    ),
    notifications=(
        NotificationKind("webhook.disabled", "A webhook has failed for too long.", HoldersOf("webhooks:manage")),
    ),
    listener=tell_webhooks,
    dashboard=(WEBHOOKS_PART,),
    quotas=(Quota("webhook_endpoints", "Addresses that are told of events.", rows_of(WebhookEndpoint, LIVE)),),
    switches=(Switch("webhooks", "Tell the organization's own systems of events."),),
)
