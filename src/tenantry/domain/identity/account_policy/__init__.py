"""What an organization asks of accounts: who may make one, and whether addresses have to be confirmed."""

from tenantry.domain.identity.account_policy.controller import AccountPolicyController
from tenantry.domain.identity.account_policy.models import AccountPolicy
from tenantry.domain.identity.account_policy.schemas import AccountPolicyChanged
from tenantry.domain.identity.users.queries import HoldersOf
from tenantry.events.definition import Event
from tenantry.events.notification import NotificationKind
from tenantry.kernel.feature import Feature, Permission

FEATURE = Feature(
    name="account_policy",
    controllers=(AccountPolicyController,),
    models=(AccountPolicy,),
    permissions=(
        Permission(
            "account_policy:manage",
            "Say who may make an account without an invitation, and whether addresses have to be confirmed.",
        ),
    ),
    events=(
        Event(
            "account_policy.changed",
            "Who may make an account, or whether addresses have to be confirmed, was changed.",
            AccountPolicyChanged,
        ),
    ),
    notifications=(
        NotificationKind(
            "account_policy.changed",
            "Who may join the organization, or has to confirm their address, was changed.",
            HoldersOf("account_policy:manage"),
        ),
    ),
)
