"""Whether whoever has an account reads mail at its address."""

from tenantry.domain.identity.verification.controller import (
    EmailVerificationController,
    OwnEmailVerificationController,
)
from tenantry.domain.identity.verification.jobs import forget_old_email_verifications
from tenantry.domain.identity.verification.mails import ACCOUNT_EXISTS_MAIL, VERIFY_EMAIL_MAIL
from tenantry.domain.identity.verification.models import EmailVerification
from tenantry.domain.identity.verification.schemas import EmailVerificationCopy
from tenantry.events.definition import Event
from tenantry.jobs.schedule import Schedule
from tenantry.kernel.feature import Feature
from tenantry.kernel.personal import PersonalData

FEATURE = Feature(
    name="verification",
    controllers=(EmailVerificationController, OwnEmailVerificationController),
    models=(EmailVerification,),
    personal_data=(PersonalData("emailVerifications", EmailVerification, EmailVerificationCopy, by=("user_id",)),),
    jobs=(forget_old_email_verifications,),
    schedules=(Schedule(forget_old_email_verifications, "0 3 * * *", jitter=7200),),
    events=(
        Event("user.email_verification_requested", "A link was mailed that confirms a user's address."),
        Event("user.email_verified", "A user has confirmed their address by a mailed link."),
    ),
    mails=(VERIFY_EMAIL_MAIL, ACCOUNT_EXISTS_MAIL),
)
