"""Settings of the workers that run jobs."""

from __future__ import annotations

from pydantic import BaseModel

from tenantry.kernel.settings.fields import seconds, whole

__all__ = ("Workers",)


class Workers(BaseModel):
    """One process of `tenantry worker`."""

    worker_concurrency: int = whole(
        10, least=1, most=200, description="Jobs that one worker process runs at a time.", unit="jobs"
    )
    worker_grace: float = seconds(
        25.0, most=3600, description="How long a worker that is told to end lets its jobs come to their end."
    )
    worker_stall: float = seconds(
        30.0,
        most=3600,
        description="How long a job may keep its worker's event loop to itself before the worker is ended, and that "
        "job with it.",
    )
    worker_memory: int = whole(
        0,
        least=0,
        most=1 << 20,
        description="Memory with which a worker is ended, and the job that took it; 0: whatever the machine gives.",
        unit="MiB",
    )
