"""Signing in and out."""

from tenantry.domain.identity.sessions.controller import SessionController
from tenantry.domain.identity.sessions.jobs import forget_ended_sessions, forget_login_traces
from tenantry.domain.identity.sessions.mails import NEW_DEVICE_MAIL, SESSION_STOLEN_MAIL
from tenantry.domain.identity.sessions.manage_controller import OwnSessionController, UserSessionController
from tenantry.domain.identity.sessions.models import KnownDevice, LoginAttempt, SpentRefreshToken, UserSession
from tenantry.domain.identity.sessions.schemas import DeviceCopy, SessionCopy, SessionOf, SessionsEnded
from tenantry.domain.identity.sessions.service import read_last_activity
from tenantry.events.definition import Event
from tenantry.events.notification import NamedIn, NotificationKind
from tenantry.jobs.schedule import Schedule
from tenantry.kernel.feature import Feature, Permission
from tenantry.kernel.personal import PersonalData

FEATURE = Feature(
    name="sessions",
    controllers=(SessionController, OwnSessionController, UserSessionController),
    models=(UserSession, SpentRefreshToken, KnownDevice, LoginAttempt),
    permissions=(Permission("sessions:manage", "See where people are signed in, and sign them out."),),
    identifiers={"session_id": UserSession},
    usage=read_last_activity,
    personal_data=(
        PersonalData("sessions", UserSession, SessionCopy, by=("user_id",)),
        PersonalData("devices", KnownDevice, DeviceCopy, by=("user_id",)),
    ),
    jobs=(forget_ended_sessions, forget_login_traces),
    schedules=(
        Schedule(forget_ended_sessions, "0 3 * * *", jitter=7200),
        Schedule(forget_login_traces, "30 3 * * *", jitter=7200),
    ),
    mails=(NEW_DEVICE_MAIL, SESSION_STOLEN_MAIL),
    events=(
        Event("session.opened", "A user has signed in.", SessionOf),
        Event("session.ended", "A session was ended: its user signed out, or somebody signed them out.", SessionOf),
        Event("user.sessions_ended", "A user's sessions were ended, all or all but one.", SessionsEnded),
        Event(
            "session.revoked", "A spent refresh token was used again, a sign of theft: the session ended.", SessionOf
        ),
    ),
    notifications=(
        NotificationKind(
            "session.revoked",
            "Somebody used a key to your account that had been used before, a sign of theft: the session has ended.",
            NamedIn("user_id"),
        ),
    ),
)
