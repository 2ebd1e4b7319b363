"""Letting people go and back in, erasing them, and handing them a copy of what is known of them."""

from tenantry.domain.identity.people.controller import OwnDataController, PeopleController
from tenantry.domain.identity.users.models import User
from tenantry.domain.identity.users.queries import HoldersOf
from tenantry.events.definition import Event
from tenantry.events.notification import NotificationKind
from tenantry.kernel.feature import Feature, Permission

FEATURE = Feature(
    name="people",
    controllers=(PeopleController, OwnDataController),
    permissions=(Permission("users:erase", "Erase people for good, with everything that is known of them."),),
    identifiers={"successor_id": User},
    events=(
        Event("user.erased", "A user was erased: their account is gone, with everything that was theirs."),
        Event("user.data_copied", "A user took a copy of everything that is known of them."),
    ),
    notifications=(NotificationKind("user.erased", "Somebody was erased for good.", HoldersOf("users:erase")),),
)
