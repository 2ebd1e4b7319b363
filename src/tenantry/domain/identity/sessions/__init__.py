"""Signing in and out."""

from tenantry.domain.identity.sessions.controller import SessionController
from tenantry.domain.identity.sessions.models import SpentRefreshToken, UserSession
from tenantry.domain.identity.sessions.service import read_last_activity
from tenantry.kernel.feature import Feature

FEATURE = Feature(
    name="sessions",
    controllers=(SessionController,),
    models=(UserSession, SpentRefreshToken),
    usage=read_last_activity,
)
