"""The organization's own jobs: what has become of something that it has asked for."""

from tenantry.domain.jobs.controller import JobController
from tenantry.domain.jobs.dashboard import JOBS_PART
from tenantry.kernel.feature import Feature, Permission

FEATURE = Feature(
    name="own_jobs",
    controllers=(JobController,),
    # Whoever may ask for something that takes its time may see how far it is; viewers ask for nothing.
    permissions=(Permission("jobs:read", "See how far a job has come, and its result.", roles=("admin", "member")),),
    dashboard=(JOBS_PART,),
)
