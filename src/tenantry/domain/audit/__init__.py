"""The organization's audit trail: what has happened in it, chained by seals so that a change shows."""

from tenantry.domain.audit.controller import AuditTrailController
from tenantry.domain.audit.dashboard import ACTIVITY_PART
from tenantry.domain.audit.jobs import seal_audit
from tenantry.domain.audit.models import AuditSeal, SealedEvent
from tenantry.domain.audit.schemas import AuditEventRead
from tenantry.events.models import AuditEvent
from tenantry.events.record import user_actor
from tenantry.jobs.schedule import Schedule
from tenantry.kernel.feature import Feature, Permission, Switch
from tenantry.kernel.personal import PersonalData

FEATURE = Feature(
    name="audit_trail",
    controllers=(AuditTrailController,),
    models=(AuditEvent, AuditSeal, SealedEvent),
    permissions=(Permission("audit:read", "Read what has happened in the organization, and who did it."),),
    personal_data=(
        # Two sections and not one: each is read along an index of its own.
        PersonalData(
            "acts", AuditEvent, AuditEventRead, where=lambda person: AuditEvent.actor == user_actor(person.id)
        ),
        PersonalData("history", AuditEvent, AuditEventRead, where=lambda person: AuditEvent.subject == person.id),
    ),
    jobs=(seal_audit,),
    schedules=(Schedule(seal_audit, "*/5 * * * *", jitter=300),),
    dashboard=(ACTIVITY_PART,),
    switches=(Switch("audit_export", "Take the audit trail away as a file."),),
)
