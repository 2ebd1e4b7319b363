"""Signing in and out."""

from tenantry.domain.identity.sessions.controller import SessionController
from tenantry.domain.identity.sessions.models import UserSession
from tenantry.kernel.feature import Feature

FEATURE = Feature(name="sessions", controllers=(SessionController,), models=(UserSession,))
