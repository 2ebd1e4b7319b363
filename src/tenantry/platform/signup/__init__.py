"""Self-service: a stranger makes an organization, once they have read a mail at their address."""

from __future__ import annotations

from tenantry.jobs.schedule import Schedule
from tenantry.kernel.feature import Feature
from tenantry.platform.signup.controller import SignUpController
from tenantry.platform.signup.jobs import forget_expired_sign_ups
from tenantry.platform.signup.mails import SIGN_UP_MAIL
from tenantry.platform.signup.models import SignUp

FEATURE = Feature(
    name="signup",
    public_controllers=(SignUpController,),
    models=(SignUp,),
    jobs=(forget_expired_sign_ups,),
    schedules=(Schedule(forget_expired_sign_ups, "40 * * * *"),),
    mails=(SIGN_UP_MAIL,),
)
