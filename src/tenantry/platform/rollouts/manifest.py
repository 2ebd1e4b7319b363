"""What this package adds to the application; the package itself gives it as `FEATURE`."""

from __future__ import annotations

from tenantry.kernel.feature import Feature
from tenantry.platform.rollouts.controller import RolloutController
from tenantry.platform.rollouts.models import Rollout, RolloutTenant

__all__ = ("FEATURE",)

FEATURE = Feature(name="rollouts", controllers=(RolloutController,), models=(Rollout, RolloutTenant))
