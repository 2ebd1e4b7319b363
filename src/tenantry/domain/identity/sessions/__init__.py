"""Signing in and out."""

from tenantry.domain.identity.sessions.controller import SessionController
from tenantry.domain.identity.sessions.jobs import forget_ended_sessions
from tenantry.domain.identity.sessions.models import SpentRefreshToken, UserSession
from tenantry.domain.identity.sessions.schemas import SessionOf
from tenantry.domain.identity.sessions.service import read_last_activity
from tenantry.events.definition import Event
from tenantry.events.notification import NamedIn, NotificationKind
from tenantry.jobs.schedule import Schedule
from tenantry.kernel.feature import Feature

FEATURE = Feature(
    name="sessions",
    controllers=(SessionController,),
    models=(UserSession, SpentRefreshToken),
    usage=read_last_activity,
    jobs=(forget_ended_sessions,),
    schedules=(Schedule(forget_ended_sessions, "0 3 * * *", jitter=7200),),
    events=(
        Event("session.opened", "A user has signed in.", SessionOf),
        Event("session.ended", "A user has signed out.", SessionOf),
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
