"""Requests that may be sent again: what was answered to them."""

from tenantry.domain.idempotency.jobs import forget_idempotency_keys
from tenantry.domain.idempotency.models import IdempotentRequest
from tenantry.jobs.schedule import Schedule
from tenantry.kernel.feature import Feature

FEATURE = Feature(
    name="idempotency",
    models=(IdempotentRequest,),
    jobs=(forget_idempotency_keys,),
    schedules=(Schedule(forget_idempotency_keys, "45 */6 * * *", jitter=7200),),
)
