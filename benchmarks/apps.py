"""What granian is given: factories of the measured servers, which find their settings in the environment."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from unittest.mock import patch
from uuid import UUID

from litestar import Controller, get
from litestar.params import FromPath

from benchmarks.profiling import profile_handlers
from benchmarks.reference import create_raw, create_untenanted
from tenantry import asgi
from tenantry.domain.teams.schemas import TeamRead
from tenantry.domain.teams.service import TeamService, provide_teams
from tenantry.features import DOMAIN_FEATURES
from tenantry.kernel.garbage import keep_what_there_is
from tenantry.kernel.http import edge
from tenantry.kernel.logging import configure_logging
from tenantry.kernel.service import Injected, to_struct
from tenantry.kernel.settings import Settings, load_settings
from tenantry.tenancy.guards import requires_permission

if TYPE_CHECKING:
    from litestar.types import ASGIApp

__all__ = ("product", "profiled", "raw", "untenanted")


class OrmTeamController(Controller):
    """The product's hot read once more, by way of the service and the ORM as any other route does it."""

    path = "/orm/teams"
    dependencies = {"teams": provide_teams}

    @get("/{team_id:uuid}", guards=[requires_permission("teams:read")])
    async def get_team(self, teams: Injected[TeamService], team_id: FromPath[UUID]) -> TeamRead:
        return to_struct(await teams.get(team_id), TeamRead)


# Beside the product's own routes, not instead of one: the same router, middleware and guards.
_FEATURES = (
    *DOMAIN_FEATURES[:-1],
    replace(DOMAIN_FEATURES[-1], controllers=(*DOMAIN_FEATURES[-1].controllers, OrmTeamController)),
)


def _settings() -> Settings:
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    return settings


def product() -> ASGIApp:
    """The product as it is served, and the ORM's variant of the hot read."""
    with patch.object(asgi, "DOMAIN_FEATURES", _FEATURES):
        app = asgi.create_asgi(_settings())
    keep_what_there_is()
    return app


def profiled() -> ASGIApp:
    """`product` with two routes that start and stop a sampling profiler."""
    settings = _settings()
    with patch.object(asgi, "DOMAIN_FEATURES", _FEATURES):
        app = asgi.create_app(settings)
    for handler in profile_handlers:
        app.register(handler)
    return edge(app, body_limit=settings.request_body_limit, body_timeout=settings.request_body_timeout)


def untenanted() -> ASGIApp:
    """The same without tenancy."""
    with patch.object(asgi, "DOMAIN_FEATURES", _FEATURES):
        app = create_untenanted(_settings())
    keep_what_there_is()
    return app


def raw() -> ASGIApp:
    """The driver alone."""
    app = create_raw(_settings())
    keep_what_there_is()
    return app
