"""Jobs of all tenants, for operators."""

from tenantry.jobs.models import OutboxEntry, ScheduleEntry
from tenantry.kernel.feature import Feature

FEATURE = Feature(name="jobs", models=(OutboxEntry, ScheduleEntry))
