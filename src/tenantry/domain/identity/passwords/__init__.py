"""Passwords that are changed, and those that were forgotten: a mail with a link that sets another."""

from tenantry.domain.identity.passwords.controller import OwnPasswordController, PasswordController
from tenantry.domain.identity.passwords.jobs import forget_old_password_resets
from tenantry.domain.identity.passwords.mails import PASSWORD_CHANGED_MAIL, PASSWORD_REPLACED_MAIL, PASSWORD_RESET_MAIL
from tenantry.domain.identity.passwords.models import PasswordReset
from tenantry.domain.identity.passwords.schemas import PasswordResetCopy
from tenantry.events.definition import Event
from tenantry.jobs.schedule import Schedule
from tenantry.kernel.feature import Feature
from tenantry.kernel.personal import PersonalData

FEATURE = Feature(
    name="passwords",
    controllers=(PasswordController, OwnPasswordController),
    models=(PasswordReset,),
    personal_data=(PersonalData("passwordResets", PasswordReset, PasswordResetCopy, by=("user_id",)),),
    jobs=(forget_old_password_resets,),
    schedules=(Schedule(forget_old_password_resets, "0 3 * * *", jitter=7200),),
    events=(
        Event("user.password_reset_requested", "Somebody asked for a user's password to be reset."),
        Event("user.password_reset", "A user has set a new password by a mailed link; their sessions ended."),
        Event("user.password_changed", "A user has changed their password; their other sessions ended."),
    ),
    mails=(PASSWORD_RESET_MAIL, PASSWORD_CHANGED_MAIL, PASSWORD_REPLACED_MAIL),
)
