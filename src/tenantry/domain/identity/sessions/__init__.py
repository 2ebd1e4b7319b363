"""Signing in and out."""

from tenantry.domain.identity.sessions.controller import SessionController
from tenantry.domain.identity.sessions.models import SpentRefreshToken, UserSession
from tenantry.kernel.feature import Feature

FEATURE = Feature(name="sessions", controllers=(SessionController,), models=(UserSession, SpentRefreshToken))
