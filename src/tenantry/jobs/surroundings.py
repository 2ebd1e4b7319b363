"""What is around an attempt at a job: its trace, its name in every log line, and who is told that it was begun."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from structlog.contextvars import bound_contextvars

from tenantry.jobs.metrics import NO_PLAN, job_waited
from tenantry.jobs.ring import tenant_of
from tenantry.kernel.errors import UnavailableException
from tenantry.kernel.tracing import continued
from tenantry.kernel.work import WORK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from saq.job import Job as SaqJob

    from tenantry.jobs.definition import Job
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.registry import TenantRegistry

__all__ = ("surround_job",)


@contextmanager
def surround_job(job: Job, taken: SaqJob, registry: TenantRegistry) -> Iterator[str]:
    """Do a job inside the block; the label of whose plan it is.

    Log lines have the ids of the request that asked for the job, and the job's own.
    """
    told: dict[str, Any] = dict(taken.meta.get("told", {}))
    traceparent = told.pop("traceparent", None)
    tenant = _tenant(taken, registry)
    attributes: dict[str, str | int] = {"tenantry.job.id": taken.key, "tenantry.job.attempt": taken.attempts}
    plan = NO_PLAN
    if tenant is not None:
        plan, told["tenant"] = tenant.plan.slug, tenant.slug
        attributes |= {"tenantry.tenant.id": str(tenant.id), "tenantry.tenant.plan": plan}
    job_waited(taken, plan)
    work = f"job {job.name}"
    working = WORK.set(work)
    try:
        with continued(work, traceparent, attributes) as trace_id:
            # The asker's own trace id where it came without a traceparent; else it is the same.
            told.setdefault("trace_id", trace_id)
            with bound_contextvars(**told, job=taken.key, job_name=job.name):
                yield plan
    finally:
        WORK.reset(working)


def _tenant(taken: SaqJob, registry: TenantRegistry) -> TenantContext | None:
    tenant_id = tenant_of(taken.get_queue().name)
    try:
        return None if tenant_id is None else registry.by_id(tenant_id)
    except UnavailableException:
        # The attempt will find out; these are labels.
        return None
