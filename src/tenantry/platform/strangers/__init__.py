"""Strangers: what people without a token may have mailed, and how often."""

from __future__ import annotations

from tenantry.jobs.schedule import Schedule
from tenantry.kernel.feature import Feature
from tenantry.platform.strangers.jobs import forget_public_requests
from tenantry.platform.strangers.models import PublicRequest

FEATURE = Feature(
    name="strangers",
    models=(PublicRequest,),
    jobs=(forget_public_requests,),
    schedules=(Schedule(forget_public_requests, "35 * * * *"),),
)
