"""Migrating every tenant."""

from tenantry.kernel.feature import Feature
from tenantry.platform.rollouts.controller import RolloutController
from tenantry.platform.rollouts.models import Rollout, RolloutTenant

FEATURE = Feature(name="rollouts", controllers=(RolloutController,), models=(Rollout, RolloutTenant))
