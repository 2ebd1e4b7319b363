"""Plans."""

from tenantry.kernel.feature import Feature
from tenantry.platform.plans.controller import PlanController
from tenantry.platform.plans.models import Plan

FEATURE = Feature(name="plans", controllers=(PlanController,), models=(Plan,))
