"""The organization itself, as its own people see it: what it is, and a copy of all its data to take away."""

from tenantry.domain.identity.users.queries import HoldersOf
from tenantry.domain.organization.controller import OrganizationController, TenantController
from tenantry.domain.organization.jobs import announce_export
from tenantry.domain.organization.owners import forget_owner_address
from tenantry.domain.organization.schemas import ExportOf
from tenantry.domain.organization.service import STORED
from tenantry.events.definition import Event
from tenantry.events.notification import NamedIn, NotificationKind
from tenantry.kernel.feature import Feature, Permission, Quota
from tenantry.tenancy.quotas import QuotaLock

FEATURE = Feature(
    name="organization",
    controllers=(OrganizationController, TenantController),
    models=(QuotaLock,),
    permissions=(
        Permission("organization:read", "See the organization's name and plan.", roles=("admin", "member", "viewer")),
        Permission("organization:export", "Take a copy of all the organization's data."),
    ),
    quotas=(Quota("storage", "Files that are kept: exports, until they expire.", STORED, unit="bytes"),),
    jobs=(announce_export,),
    erasing=forget_owner_address,
    events=(
        Event("organization.export_requested", "A copy of all the organization's data was asked for."),
        Event("organization.export_ready", "A copy that was asked for can be fetched.", ExportOf),
        Event("organization.export_failed", "A copy that was asked for could not be made.", ExportOf),
    ),
    notifications=(
        NotificationKind(
            "organization.export_requested",
            "Somebody has asked for a copy of all the organization's data.",
            HoldersOf("organization:export"),
        ),
        NotificationKind("organization.export_ready", "The copy that you have asked for is ready.", NamedIn("user_id")),
        NotificationKind(
            "organization.export_failed", "The copy that you have asked for could not be made.", NamedIn("user_id")
        ),
    ),
)
