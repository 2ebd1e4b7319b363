"""Which organizations a person is in: known by a keyed hash of their address, told by mail alone."""

from __future__ import annotations

from tenantry.jobs.schedule import Schedule
from tenantry.kernel.feature import Feature
from tenantry.platform.directory.controller import OrganizationsController
from tenantry.platform.directory.jobs import repair_account_directory
from tenantry.platform.directory.mails import ORGANIZATIONS_MAIL
from tenantry.platform.directory.models import account_directory, account_directory_key

__all__ = ("FEATURE", "account_directory", "account_directory_key")

FEATURE = Feature(
    name="directory",
    public_controllers=(OrganizationsController,),
    jobs=(repair_account_directory,),
    schedules=(Schedule(repair_account_directory, "50 4 * * 0"),),
    mails=(ORGANIZATIONS_MAIL,),
)
