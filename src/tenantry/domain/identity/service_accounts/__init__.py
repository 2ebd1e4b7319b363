"""Service accounts: machines that act in the organization's name, without a password, a session or an address."""

from tenantry.domain.identity.service_accounts.controller import ServiceAccountController
from tenantry.domain.identity.service_accounts.models import ServiceAccount, ServiceAccountRole
from tenantry.domain.identity.service_accounts.schemas import ServiceAccountChanged, ServiceAccountRoles
from tenantry.events.definition import Event
from tenantry.kernel.feature import Feature, Permission, Quota
from tenantry.tenancy.entitlements import rows_of

FEATURE = Feature(
    name="service_accounts",
    controllers=(ServiceAccountController,),
    models=(ServiceAccount, ServiceAccountRole),
    permissions=(Permission("service_accounts:manage", "See, make and change service accounts and their API keys."),),
    identifiers={"service_account_id": ServiceAccount},
    events=(
        Event("service_account.created", "A service account was made.", ServiceAccountRoles),
        Event("service_account.updated", "A service account was changed.", ServiceAccountChanged),
        Event("service_account.deleted", "A service account was deleted, and its API keys with it."),
    ),
    quotas=(Quota("service_accounts", "Machines with an account.", rows_of(ServiceAccount)),),
)
