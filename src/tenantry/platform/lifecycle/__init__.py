"""What is done to a tenant as a whole: archived and restored, cloned, exported and imported."""

from tenantry.kernel.feature import Feature

FEATURE = Feature(name="lifecycle")
