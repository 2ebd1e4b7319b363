"""Jobs of all tenants, for operators."""

from tenantry.jobs.models import OutboxEntry
from tenantry.kernel.feature import Feature
from tenantry.platform.jobs.controller import JobController

FEATURE = Feature(name="jobs", controllers=(JobController,), models=(OutboxEntry,))
