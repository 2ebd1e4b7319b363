"""API keys: what machines send in place of a token, in a user's name or a service account's."""

from tenantry.domain.identity.api_keys.controller import ApiKeyController
from tenantry.domain.identity.api_keys.dashboard import API_KEYS_PART
from tenantry.domain.identity.api_keys.jobs import forget_ended_api_keys
from tenantry.domain.identity.api_keys.manage_controller import (
    OrganizationApiKeyController,
    ServiceAccountKeyController,
)
from tenantry.domain.identity.api_keys.models import ApiKey
from tenantry.domain.identity.api_keys.schemas import ApiKeyOf, ApiKeyRead
from tenantry.domain.identity.api_keys.service import is_good, revoke_with_their_user
from tenantry.events.definition import Event
from tenantry.jobs.schedule import Schedule
from tenantry.kernel.feature import Feature, Permission, Quota
from tenantry.kernel.personal import NotCopied, PersonalData
from tenantry.tenancy.entitlements import rows_of

FEATURE = Feature(
    name="api_keys",
    controllers=(ApiKeyController, OrganizationApiKeyController, ServiceAccountKeyController),
    models=(ApiKey,),
    permissions=(Permission("api_keys:manage", "See and revoke everybody's API keys."),),
    identifiers={"api_key_id": ApiKey},
    personal_data=(
        PersonalData("apiKeys", ApiKey, ApiKeyRead, by=("user_id",)),
        NotCopied(ApiKey, ("created_by_id",), "who has made a service account's key: the key is the organization's"),
    ),
    jobs=(forget_ended_api_keys,),
    schedules=(Schedule(forget_ended_api_keys, "15 3 * * *", jitter=7200),),
    events=(
        Event("api_key.created", "An API key was made.", ApiKeyOf),
        Event("api_key.rotated", "An API key was given a new secret.", ApiKeyOf),
        Event("api_key.revoked", "An API key was revoked.", ApiKeyOf),
    ),
    listener=revoke_with_their_user,
    dashboard=(API_KEYS_PART,),
    quotas=(Quota("api_keys", "API keys that are good, of people and of machines.", rows_of(ApiKey, is_good())),),
)
