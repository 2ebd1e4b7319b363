"""Migrating every tenant."""

from tenantry.kernel.feature import Feature
from tenantry.platform.rollouts.models import Rollout, RolloutTenant

FEATURE = Feature(name="rollouts", models=(Rollout, RolloutTenant))
