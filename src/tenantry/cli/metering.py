"""What the commands about use need: the control plane, and Redis."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tenantry.cli.control import ControlPlane, control_plane
from tenantry.jobs.ring import Ring
from tenantry.jobs.state import JobStates
from tenantry.kernel.home import complete
from tenantry.kernel.redis import create_redis
from tenantry.kernel.settings import load_settings
from tenantry.platform.jobs.service import JobControl
from tenantry.tenancy.wiring import required

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

__all__ = ("Meter", "open_meter")


@dataclass(frozen=True)
class Meter:
    control: ControlPlane
    redis: Redis

    @property
    def jobs(self) -> JobControl:
        return JobControl(
            database=self.control.database,
            read_scope=self.control.read_scope,
            write_scope=self.control.write_scope,
            states=JobStates(Ring(self.redis)),
        )


@asynccontextmanager
async def open_meter() -> AsyncIterator[Meter]:
    """Open both, with the settings of the environment.

    Raises:
        SettingsError: they are wrong, or have no addresses.
    """
    settings = complete(load_settings())
    # Patient, unlike the API's: somebody sits there and waits, and nobody else does meanwhile.
    redis = create_redis(required(settings.redis_url), timeout=5.0, max_connections=4)
    try:
        async with control_plane(settings) as control:
            yield Meter(control, redis)
    finally:
        await redis.aclose()
