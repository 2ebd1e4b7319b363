"""Second factors: authenticator apps, passkeys and recovery codes; step-up; and what the organization asks for."""

from tenantry.domain.identity.factors.controller import (
    SecondFactorController,
    SecurityController,
    UserFactorController,
)
from tenantry.domain.identity.factors.jobs import tend_second_factors
from tenantry.domain.identity.factors.login_controller import FactorLoginController, StepUpController
from tenantry.domain.identity.factors.mails import FACTOR_ADDED_MAIL, FACTOR_REMOVED_MAIL, FACTORS_RESET_MAIL
from tenantry.domain.identity.factors.models import (
    FactorChallenge,
    FactorFailure,
    Passkey,
    RecoveryCode,
    SecurityPolicy,
    TotpFactor,
)
from tenantry.domain.identity.factors.schemas import (
    AuthenticatorAppCopy,
    FactorOf,
    PasskeyCopy,
    RecoveryCodeUsed,
    SecurityChanged,
)
from tenantry.domain.identity.sessions.schemas import SessionOf
from tenantry.events.definition import Event
from tenantry.events.notification import NotificationKind, the_subject
from tenantry.jobs.schedule import Schedule
from tenantry.kernel.feature import Feature, Permission
from tenantry.kernel.personal import NotCopied, PersonalData

FEATURE = Feature(
    name="second factors",
    controllers=(
        SecondFactorController,
        UserFactorController,
        SecurityController,
        FactorLoginController,
        StepUpController,
    ),
    models=(TotpFactor, RecoveryCode, Passkey, FactorChallenge, FactorFailure, SecurityPolicy),
    permissions=(Permission("organization:secure", "Say whether everybody needs a second factor."),),
    identifiers={"passkey_id": Passkey},
    personal_data=(
        PersonalData("authenticatorApps", TotpFactor, AuthenticatorAppCopy, by=("user_id",)),
        PersonalData("passkeys", Passkey, PasskeyCopy, by=("user_id",)),
        NotCopied(RecoveryCode, ("user_id",), "digests of codes, of which only the person has the text"),
        NotCopied(FactorChallenge, ("user_id",), "log-ins under way, for a few minutes"),
        NotCopied(FactorFailure, ("user_id",), "how often a factor was wrong today, for the brake"),
    ),
    jobs=(tend_second_factors,),
    schedules=(Schedule(tend_second_factors, "45 2 * * *", jitter=7200),),
    events=(
        Event("second_factor.added", "A user has set a second factor up.", FactorOf),
        Event("second_factor.removed", "A user has removed a second factor of theirs.", FactorOf),
        Event("second_factor.reset", "A user's second factors were removed by somebody else; their sessions ended."),
        Event("second_factor.recovery_codes_made", "A user has made new recovery codes."),
        Event("second_factor.recovery_code_used", "A recovery code stood in for a second factor.", RecoveryCodeUsed),
        Event("second_factor.refused", "After a user's right password, too many wrong second factors were given."),
        Event("session.stepped_up", "A user has proved again who they are.", SessionOf),
        Event("organization.security_changed", "What the organization asks of everybody was changed.", SecurityChanged),
    ),
    notifications=(
        NotificationKind("second_factor.reset", "Your second factors were reset by somebody else.", the_subject),
        NotificationKind(
            "second_factor.recovery_code_used", "One of your recovery codes was used in place of a factor.", the_subject
        ),
        NotificationKind(
            "second_factor.refused",
            "Somebody has your password, and did not have your second factor: change the password.",
            the_subject,
        ),
    ),
    mails=(FACTOR_ADDED_MAIL, FACTOR_REMOVED_MAIL, FACTORS_RESET_MAIL),
)
