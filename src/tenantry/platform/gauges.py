"""What there is in the whole deployment, as the provisioner's metrics tell it: queues, rollouts, warm schemas, catalog.

The API and the workers may be gone, and what they have left undone is still counted here. Several provisioners tell the
same, so sum none of these: take the largest.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar, Final

from prometheus_client import Gauge
from sqlalchemy import text

from tenantry.jobs.models import OUTBOX_STATES
from tenantry.platform.rollouts.models import ROLLOUT_STATES, ROLLOUT_TENANT_STATES
from tenantry.tenancy.metrics import sample_pool
from tenantry.tenancy.migrations import head

if TYPE_CHECKING:
    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

__all__ = ("DeploymentGauges",)

_MODE: Final = "livemax"

_sampled_at = Gauge(
    "tenantry_deployment_sampled_timestamp_seconds",
    "When a provisioner last looked at what there is in the deployment; all of its other figures are of then.",
    multiprocess_mode=_MODE,
)
_outbox = Gauge(
    "tenantry_outbox_jobs",
    "Jobs written down, by status: pending (no relay has taken it), later, relayed (waits in a queue, or runs), dead.",
    ("status",),
    multiprocess_mode=_MODE,
)
_outbox_lag = Gauge(
    "tenantry_outbox_lag_seconds",
    "How long the oldest job that is due has waited for a relay.",
    multiprocess_mode=_MODE,
)
_oldest_relayed = Gauge(
    "tenantry_outbox_oldest_relayed_seconds",
    "How long ago the oldest job that has not ended was put into its queue.",
    multiprocess_mode=_MODE,
)
_operations = Gauge(
    "tenantry_operations_pending", "Operations that wait for a provisioner, or are at work.", multiprocess_mode=_MODE
)
_oldest_operation = Gauge(
    "tenantry_operations_oldest_pending_seconds",
    "How long the oldest of them could have been begun.",
    multiprocess_mode=_MODE,
)
_warm = Gauge("tenantry_warm_schemas", "Schemas at this release's revision, without a tenant.", multiprocess_mode=_MODE)
_warm_wanted = Gauge(
    "tenantry_warm_schemas_wanted", "How many TENANTRY_WARM_POOL_SIZE asks for.", multiprocess_mode=_MODE
)
_behind = Gauge(
    "tenantry_tenants_behind",
    "Tenants with a schema at another revision than this release's newest.",
    multiprocess_mode=_MODE,
)
_rollout = Gauge(
    "tenantry_rollout_state",
    "1 for the state that the latest rollout is in, 0 for the others.",
    ("status",),
    multiprocess_mode=_MODE,
)
_rollout_tenants = Gauge(
    "tenantry_rollout_tenants",
    "Tenants of the latest rollout, by what has become of them.",
    ("status",),
    multiprocess_mode=_MODE,
)
_schemas = Gauge(
    "tenantry_catalog_schemas", "Tenants' schemas, the warm ones too, as of last night.", multiprocess_mode=_MODE
)
_relations = Gauge(
    "tenantry_catalog_relations", "Rows of pg_class, of the whole database, as of last night.", multiprocess_mode=_MODE
)
_database = Gauge("tenantry_database_bytes", "Size of the database, as of last night.", multiprocess_mode=_MODE)
_backup = Gauge(
    "tenantry_backup_last_timestamp_seconds",
    "When a backup of everything was last completed without a failure; 0 where none ever was.",
    multiprocess_mode=_MODE,
)

# Each by a partial index of its own: `later` may have a row of every tenant and more, and is not to be walked over.
_OUTBOX = text("""
SELECT (SELECT count(*) FROM platform.outbox WHERE status = 'later') AS later,
       (SELECT count(*) FROM platform.outbox WHERE status = 'dead') AS dead,
       p.count AS pending, p.age AS lag, r.count AS relayed, r.age AS relayed_age
  FROM (SELECT count(*), extract(epoch FROM now() - min(due)) AS age
          FROM platform.outbox WHERE status = 'pending') p,
       (SELECT count(*), extract(epoch FROM now() - min(updated_at)) AS age
          FROM platform.outbox WHERE status = 'relayed') r
""")
_OPERATIONS = text("""
SELECT count(*) AS pending, extract(epoch FROM now() - min(not_before)) AS age
  FROM platform.operation WHERE status = 'pending'
""")
_SCHEMAS = text("""
SELECT (SELECT count(*) FROM platform.warm_schema WHERE revision = :head) AS warm,
       (SELECT count(*) FROM platform.tenant
         WHERE status IN ('active', 'suspended') AND revision IS DISTINCT FROM :head) AS behind
""")
_ROLLOUT = text("""
SELECT o.status, count(*) FILTER (WHERE t.status = 'pending') AS pending,
       count(*) FILTER (WHERE t.status = 'done') AS done, count(*) FILTER (WHERE t.status = 'failed') AS failed
  FROM (SELECT id, status FROM platform.rollout ORDER BY created_at DESC, id DESC LIMIT 1) o
  LEFT JOIN platform.rollout_tenant t ON t.rollout_id = o.id GROUP BY o.status
""")
_BACKUP = text("""
SELECT extract(epoch FROM created_at) FROM platform.audit_entry
 WHERE action = 'backup.completed' ORDER BY id DESC LIMIT 1
""")
_CATALOG = text("SELECT schemas, relations, database_bytes FROM platform.catalog_statistic ORDER BY day DESC LIMIT 1")


class DeploymentGauges:
    """A chore: looks now and then, in one short transaction."""

    name: ClassVar[str] = "metrics"

    def __init__(self, *, warm_schemas: int, interval: float = 15.0) -> None:
        """`warm_schemas` is how many there should be; `interval` is in seconds."""
        self.interval = interval
        self._warm_schemas = warm_schemas

    async def run(self, engine: AsyncEngine) -> bool:
        """Set all of them; there is never more to do.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the database is away. The figures stay, and their time with them.
        """
        async with engine.connect() as connection, connection.begin():
            await connection.execute(text("SET TRANSACTION READ ONLY"))
            await _look_at_work(connection)
            await _look_at_schemas(connection)
        _warm_wanted.set(self._warm_schemas)
        sample_pool("tenantry-owner", engine.pool)
        _sampled_at.set(time.time())
        return False


async def _look_at_work(connection: AsyncConnection) -> None:
    outbox = (await connection.execute(_OUTBOX)).one()
    for status in OUTBOX_STATES:
        _outbox.labels(status).set(getattr(outbox, status))
    _outbox_lag.set(_age(outbox.lag))
    _oldest_relayed.set(_age(outbox.relayed_age))
    operations = (await connection.execute(_OPERATIONS)).one()
    _operations.set(operations.pending)
    _oldest_operation.set(_age(operations.age))


async def _look_at_schemas(connection: AsyncConnection) -> None:
    schemas = (await connection.execute(_SCHEMAS, {"head": head("tenant")})).one()
    _warm.set(schemas.warm)
    _behind.set(schemas.behind)
    rollout: Row[tuple[object, ...]] | None = (await connection.execute(_ROLLOUT)).one_or_none()
    for state in ROLLOUT_STATES:
        _rollout.labels(state).set(rollout is not None and rollout.status == state)
    for state in ROLLOUT_TENANT_STATES:
        _rollout_tenants.labels(state).set(0 if rollout is None else getattr(rollout, state))
    catalog = (await connection.execute(_CATALOG)).one_or_none()
    if catalog is not None:
        _schemas.set(catalog.schemas)
        _relations.set(catalog.relations)
        _database.set(catalog.database_bytes)
    _backup.set((await connection.execute(_BACKUP)).scalar() or 0)


def _age(seconds: object) -> float:
    """Of something that may not be there, or lie ahead."""
    return 0.0 if seconds is None else max(0.0, float(seconds))  # type: ignore[arg-type]
