"""The organization itself, as its own people see it: what it is, and a copy of all its data to take away."""

from tenantry.domain.organization.controller import OrganizationController
from tenantry.events.definition import Event
from tenantry.kernel.feature import Feature, Permission

FEATURE = Feature(
    name="organization",
    controllers=(OrganizationController,),
    permissions=(
        Permission("organization:read", "See the organization's name and plan.", roles=("admin", "member", "viewer")),
        Permission("organization:export", "Take a copy of all the organization's data."),
    ),
    events=(Event("organization.export_requested", "A copy of all the organization's data was asked for."),),
)
