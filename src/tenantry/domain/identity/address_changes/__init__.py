"""Accounts that get another address, once the old one and the new one have confirmed it."""

from tenantry.domain.identity.address_changes.controller import EmailChangeController, OwnEmailChangeController
from tenantry.domain.identity.address_changes.handlers import forget_address
from tenantry.domain.identity.address_changes.jobs import forget_old_email_changes
from tenantry.domain.identity.address_changes.mails import (
    EMAIL_CHANGE_NEW_MAIL,
    EMAIL_CHANGE_OLD_MAIL,
    EMAIL_CHANGED_MAIL,
)
from tenantry.domain.identity.address_changes.models import EmailChange
from tenantry.domain.identity.address_changes.schemas import EmailChangeCopy
from tenantry.events.definition import Event
from tenantry.events.notification import NotificationKind, the_subject
from tenantry.jobs.schedule import Schedule
from tenantry.kernel.feature import Feature
from tenantry.kernel.personal import PersonalData

FEATURE = Feature(
    name="address_changes",
    controllers=(OwnEmailChangeController, EmailChangeController),
    models=(EmailChange,),
    personal_data=(PersonalData("emailChanges", EmailChange, EmailChangeCopy, by=("user_id",)),),
    erasing=forget_address,
    jobs=(forget_old_email_changes,),
    schedules=(Schedule(forget_old_email_changes, "0 3 * * *", jitter=7200),),
    events=(
        Event("user.email_change_requested", "A user has asked for another address."),
        Event("user.email_change_cancelled", "A user's change of address was cancelled."),
        Event(
            "user.email_changed", "A user has another address, as it and the old one have confirmed; sessions ended."
        ),
    ),
    mails=(EMAIL_CHANGE_OLD_MAIL, EMAIL_CHANGE_NEW_MAIL, EMAIL_CHANGED_MAIL),
    notifications=(NotificationKind("user.email_changed", "Your account has another address.", the_subject),),
)
