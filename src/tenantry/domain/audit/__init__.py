"""The organization's audit trail: what has happened in it, chained by seals so that a change shows."""

from tenantry.domain.audit.controller import AuditTrailController
from tenantry.domain.audit.jobs import seal_audit
from tenantry.domain.audit.models import AuditSeal, SealedEvent
from tenantry.events.models import AuditEvent
from tenantry.jobs.schedule import Schedule
from tenantry.kernel.feature import Feature, Permission

FEATURE = Feature(
    name="audit_trail",
    controllers=(AuditTrailController,),
    models=(AuditEvent, AuditSeal, SealedEvent),
    permissions=(Permission("audit:read", "Read what has happened in the organization, and who did it."),),
    jobs=(seal_audit,),
    schedules=(Schedule(seal_audit, "*/5 * * * *", jitter=300),),
)
