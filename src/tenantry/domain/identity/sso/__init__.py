"""Single sign-on: people sign in by an OpenID provider of the organization's own."""

from tenantry.domain.identity.sso.controller import SsoController
from tenantry.domain.identity.sso.jobs import tend_sso
from tenantry.domain.identity.sso.login_controller import SsoLoginController
from tenantry.domain.identity.sso.models import SsoConnection, SsoDomain, SsoGrant, SsoIdentity, SsoLogin
from tenantry.domain.identity.sso.schemas import SsoChanged, SsoIdentityCopy, SsoLinked
from tenantry.domain.identity.users.queries import HoldersOf
from tenantry.events.definition import Event
from tenantry.events.notification import NotificationKind
from tenantry.jobs.schedule import Schedule
from tenantry.kernel.feature import Feature, Permission, Switch
from tenantry.kernel.personal import NotCopied, PersonalData

FEATURE = Feature(
    name="sso",
    controllers=(SsoController, SsoLoginController),
    models=(SsoConnection, SsoDomain, SsoGrant, SsoIdentity, SsoLogin),
    permissions=(
        Permission("sso:read", "See by which providers people sign in, and who they are there."),
        # Whoever keeps a connection can be whom they like, thus the owners' alone to give.
        Permission("sso:manage", "Connect providers by which people sign in; needs all other permissions.", roles=()),
    ),
    identifiers={"connection_id": SsoConnection, "identity_id": SsoIdentity},
    personal_data=(
        PersonalData("singleSignOn", SsoIdentity, SsoIdentityCopy, by=("user_id",)),
        NotCopied(SsoLogin, ("user_id",), "log-ins by a provider that have just ended, for minutes"),
    ),
    jobs=(tend_sso,),
    schedules=(Schedule(tend_sso, "0 3 * * *", jitter=7200),),
    events=(
        Event("sso_connection.created", "A provider was connected by which people sign in."),
        Event("sso_connection.updated", "A connection to a provider was changed.", SsoChanged),
        Event("sso_connection.deleted", "A connection to a provider was deleted."),
        Event("sso_identity.linked", "A user has come by a provider for the first time.", SsoLinked),
        Event("sso_identity.unlinked", "Who a user is at a provider was forgotten.", SsoLinked),
    ),
    notifications=(
        NotificationKind(
            "sso_connection.updated",
            "How people sign in by a provider was changed.",
            HoldersOf("sso:manage"),
        ),
    ),
    switches=(Switch("sso", "Sign people in by a provider of the organization's own."),),
)
