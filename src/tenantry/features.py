"""Every package's manifest: the one central list. A new resource is one import and one entry here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantry import mail
from tenantry.domain import audit as trail
from tenantry.domain import (
    dashboard,
    idempotency,
    notifications,
    operator_access,
    organization,
    roles,
    scim,
    tags,
    team_invitations,
    teams,
    webhooks,
)
from tenantry.domain import jobs as own_jobs
from tenantry.domain import usage as own_usage
from tenantry.domain.identity import (
    account_policy,
    address_changes,
    api_keys,
    factors,
    invitations,
    passwords,
    people,
    service_accounts,
    sessions,
    sign_up,
    sso,
    users,
    verification,
)
from tenantry.events.definition import EventCatalogue, use_catalogue
from tenantry.kernel.personal import PersonalCatalogue, use_personal
from tenantry.mail.definition import MailCatalogue, use_mails
from tenantry.mail.jobs import send_mail, send_platform_mail
from tenantry.platform import (
    audit,
    catalog,
    deletion,
    directory,
    jobs,
    lifecycle,
    operators,
    plans,
    provisioning,
    rollouts,
    schedules,
    signup,
    strangers,
    tenant_access,
    tenants,
    usage,
)
from tenantry.tenancy.entitlements import Entitlements, use_entitlements
from tenantry.tenancy.models import SharedBase, TenantBase

if TYPE_CHECKING:
    from tenantry.jobs.definition import Job
    from tenantry.jobs.schedule import Schedule
    from tenantry.kernel.feature import Feature, ProvisionHook, SeedHook, UsageHook

__all__ = (
    "DOMAIN_FEATURES",
    "ENTITLEMENTS",
    "EVENTS",
    "JOBS",
    "MAILS",
    "NOTIFICATIONS",
    "PERSONAL_DATA",
    "PLATFORM_FEATURES",
    "PROVISION_HOOKS",
    "SCHEDULES",
    "SEED_HOOKS",
    "SHARED_METADATA",
    "TENANT_METADATA",
    "USAGE_HOOKS",
)

DOMAIN_FEATURES: tuple[Feature, ...] = (
    roles.FEATURE,
    users.FEATURE,
    sessions.FEATURE,
    invitations.FEATURE,
    passwords.FEATURE,
    sso.FEATURE,
    account_policy.FEATURE,
    verification.FEATURE,
    address_changes.FEATURE,
    sign_up.FEATURE,
    tags.FEATURE,
    teams.FEATURE,
    team_invitations.FEATURE,
    organization.FEATURE,
    own_usage.FEATURE,
    own_jobs.FEATURE,
    trail.FEATURE,
    webhooks.FEATURE,
    mail.FEATURE,
    notifications.FEATURE,
    service_accounts.FEATURE,
    api_keys.FEATURE,
    people.FEATURE,
    scim.FEATURE,
    idempotency.FEATURE,
    dashboard.FEATURE,
    factors.FEATURE,
    operator_access.FEATURE,
)
"""In the order in which their `seed` and then their `provision` hooks run: a hook may use the rows of those before."""

PLATFORM_FEATURES: tuple[Feature, ...] = (
    plans.FEATURE,
    tenants.FEATURE,
    lifecycle.FEATURE,
    deletion.FEATURE,
    rollouts.FEATURE,
    provisioning.FEATURE,
    operators.FEATURE,
    audit.FEATURE,
    jobs.FEATURE,
    schedules.FEATURE,
    catalog.FEATURE,
    usage.FEATURE,
    strangers.FEATURE,
    signup.FEATURE,
    directory.FEATURE,
    tenant_access.FEATURE,
)

SEED_HOOKS: tuple[SeedHook, ...] = tuple(feature.seed for feature in DOMAIN_FEATURES if feature.seed is not None)

PROVISION_HOOKS: tuple[ProvisionHook, ...] = tuple(
    feature.provision for feature in DOMAIN_FEATURES if feature.provision is not None
)

USAGE_HOOKS: tuple[UsageHook, ...] = tuple(feature.usage for feature in DOMAIN_FEATURES if feature.usage is not None)

JOBS: tuple[Job, ...] = tuple(
    dict.fromkeys(
        job for feature in (*DOMAIN_FEATURES, *PLATFORM_FEATURES) for job in (*feature.jobs, *feature.handlers.values())
    )
)
"""Everything that a worker can run."""

SCHEDULES: tuple[Schedule, ...] = tuple(
    schedule for feature in (*DOMAIN_FEATURES, *PLATFORM_FEATURES) for schedule in feature.schedules
)

EVENTS = EventCatalogue(DOMAIN_FEATURES)
"""Everything that can be recorded, and which jobs each is handed to."""

NOTIFICATIONS = EVENTS.notifications
"""Of which events people are told, by their names."""

use_catalogue(EVENTS)

MAILS = MailCatalogue((*DOMAIN_FEATURES, *PLATFORM_FEATURES), job=send_mail, platform_job=send_platform_mail)
"""Everything that is written to people."""

use_mails(MAILS)

PERSONAL_DATA = PersonalCatalogue(DOMAIN_FEATURES)
"""What is kept of people, for copies and erasures."""

use_personal(PERSONAL_DATA)

ENTITLEMENTS = Entitlements(DOMAIN_FEATURES)
"""What plans can say something of: quotas and switches."""

use_entitlements(ENTITLEMENTS)

SHARED_METADATA = SharedBase.metadata
TENANT_METADATA = TenantBase.metadata
