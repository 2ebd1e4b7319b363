# mypy: ignore-errors
"""The two variants of one read."""

from __future__ import annotations

from django.urls import path
from workspace.views import team, team_of_live_session

urlpatterns = [
    path("api/teams/<uuid:team_id>", team),
    path("api/checked/teams/<uuid:team_id>", team_of_live_session),
]
