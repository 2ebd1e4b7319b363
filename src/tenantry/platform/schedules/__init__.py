"""Schedules of all tenants and of the platform itself, for operators."""

from tenantry.jobs.models import ScheduleEntry
from tenantry.kernel.feature import Feature
from tenantry.platform.schedules.controller import ScheduleController, TenantScheduleController

FEATURE = Feature(name="schedules", controllers=(ScheduleController, TenantScheduleController), models=(ScheduleEntry,))
