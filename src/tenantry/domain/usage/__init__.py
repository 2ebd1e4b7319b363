"""What the organization has used, as its own people see it."""

from __future__ import annotations

from tenantry.domain.usage.controller import OwnUsageController
from tenantry.kernel.feature import Feature

FEATURE = Feature(name="usage", controllers=(OwnUsageController,))
