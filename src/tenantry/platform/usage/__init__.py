"""What tenants use, day by day: written down every minute, measured a few times a day, exported for bills."""

from __future__ import annotations

from tenantry.jobs.schedule import Schedule
from tenantry.kernel.feature import Feature
from tenantry.platform.usage.controller import UsageController
from tenantry.platform.usage.jobs import drain_use, measure_use
from tenantry.platform.usage.models import usage_day

__all__ = ("FEATURE", "usage_day")

FEATURE = Feature(
    name="usage",
    controllers=(UsageController,),
    jobs=(drain_use, measure_use),
    schedules=(Schedule(drain_use, "* * * * *"), Schedule(measure_use, "*/5 * * * *")),
)
