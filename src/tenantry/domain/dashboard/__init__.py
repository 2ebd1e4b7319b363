"""What people see when they come in, of all features that have something to show."""

from tenantry.domain.dashboard.controller import DashboardController
from tenantry.kernel.feature import Feature

FEATURE = Feature(name="dashboard", controllers=(DashboardController,))
