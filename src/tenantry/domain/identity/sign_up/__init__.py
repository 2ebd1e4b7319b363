"""Joining an organization without an invitation, where its policy of accounts lets people."""

from tenantry.domain.identity.sign_up.controller import SignUpController
from tenantry.domain.identity.sign_up.handlers import forget_address, made_for
from tenantry.domain.identity.sign_up.jobs import forget_old_sign_ups
from tenantry.domain.identity.sign_up.mails import SIGN_UP_MAIL
from tenantry.domain.identity.sign_up.models import SignUp
from tenantry.domain.identity.sign_up.schemas import SignUpCopy
from tenantry.domain.identity.users.queries import HoldersOf
from tenantry.events.definition import Event
from tenantry.events.notification import NotificationKind
from tenantry.jobs.schedule import Schedule
from tenantry.kernel.feature import Feature
from tenantry.kernel.personal import PersonalData

FEATURE = Feature(
    name="sign_up",
    controllers=(SignUpController,),
    models=(SignUp,),
    personal_data=(PersonalData("signUps", SignUp, SignUpCopy, where=made_for),),
    erasing=forget_address,
    jobs=(forget_old_sign_ups,),
    schedules=(Schedule(forget_old_sign_ups, "0 3 * * *", jitter=7200),),
    events=(Event("user.signed_up", "Somebody has made an account without being invited."),),
    mails=(SIGN_UP_MAIL,),
    notifications=(
        NotificationKind(
            "user.signed_up", "Somebody has joined the organization without being invited.", HoldersOf("users:write")
        ),
    ),
)
