"""Measuring the database's catalog, and comparing what was measured."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import msgspec
from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from uuid_utils.compat import uuid7

from tenantry.jobs.models import OutboxEntry
from tenantry.kernel.service import Service, create_service_provider
from tenantry.platform.catalog.models import CatalogStatistic
from tenantry.platform.catalog.schemas import CatalogGrowth, CatalogMeasurement, CatalogOverview, CatalogTable

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ("KEPT", "CatalogService", "measure", "provide_catalog")

KEPT = 400
"""Days that measurements are kept: a year, and some to compare its ends."""
_SPANS = (1, 7, 30)

_COUNTS = text("""
SELECT (SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname ~ '^t_[0-9a-f]{32}$') AS schemas,
       (SELECT count(*) FROM pg_catalog.pg_class) AS relations,
       platform.database_size() AS database_bytes
""")
# By the functions behind pg_stat_all_tables: the view joins all relations there are, of ten thousand tenants.
_TABLES = text("""
SELECT c.relname AS name, pg_total_relation_size(c.oid) AS bytes, pg_table_size(c.oid) AS table_bytes,
       pg_indexes_size(c.oid) AS index_bytes, pg_stat_get_live_tuples(c.oid) AS live,
       pg_stat_get_dead_tuples(c.oid) AS dead,
       greatest(pg_stat_get_last_vacuum_time(c.oid), pg_stat_get_last_autovacuum_time(c.oid)) AS vacuumed_at,
       greatest(pg_stat_get_last_analyze_time(c.oid), pg_stat_get_last_autoanalyze_time(c.oid)) AS analyzed_at
  FROM pg_catalog.pg_class c
 WHERE c.oid IN ('pg_catalog.pg_attribute'::regclass, 'pg_catalog.pg_class'::regclass,
                 'pg_catalog.pg_statistic'::regclass)
 ORDER BY c.relname
""")


class CatalogService(Service[CatalogStatistic]):
    """Measurements."""

    class Repo(SQLAlchemyAsyncRepository[CatalogStatistic]):
        model_type = CatalogStatistic

    repository_type = Repo

    async def overview(self) -> CatalogOverview:
        """The last measurement, and how it differs from those before."""
        session = self.repository.session
        newest = select(CatalogStatistic).order_by(CatalogStatistic.day.desc()).limit(1)
        row = await session.scalar(newest)
        if row is None:
            return CatalogOverview(latest=None, growth=[])
        latest, growth = _measurement(row), []
        for days in _SPANS:
            earlier = await session.scalar(
                newest.where(CatalogStatistic.day <= latest.day - datetime.timedelta(days=days))
            )
            if earlier is not None:
                growth.append(_growth(_measurement(earlier), latest, days))
        return CatalogOverview(latest=latest, growth=growth)


async def measure(session: AsyncSession) -> datetime.date:
    """Write down what there is now as what there is today, and forget what is too old; the day.

    In the control plane's scope.
    """
    now = datetime.datetime.now(datetime.UTC)
    counts = (await session.execute(_COUNTS)).one()
    tables = [CatalogTable(**row) for row in (await session.execute(_TABLES)).mappings()]
    jobs = (
        await session.execute(
            select(OutboxEntry.status, func.count().label("count"), func.min(OutboxEntry.due).label("first")).group_by(
                OutboxEntry.status
            )
        )
    ).all()
    first = next((row.first for row in jobs if row.status == "pending"), None)
    values = {
        "measured_at": now,
        "schemas": counts.schemas,
        "relations": counts.relations,
        "database_bytes": counts.database_bytes,
        "tables": msgspec.to_builtins(tables),
        "jobs": {row.status: row.count for row in jobs},
        "oldest_pending": None if first is None else max(0.0, (now - first).total_seconds()),
        "updated_at": now,
    }
    today = now.date()
    await session.execute(
        insert(CatalogStatistic)
        .values(id=uuid7(), day=today, created_at=now, **values)
        .on_conflict_do_update(index_elements=["day"], set_=values)
    )
    await session.execute(
        delete(CatalogStatistic).where(CatalogStatistic.day <= today - datetime.timedelta(days=KEPT)),
        execution_options={"synchronize_session": False},
    )
    return today


def _measurement(row: CatalogStatistic) -> CatalogMeasurement:
    tables = msgspec.convert(row.tables, list[CatalogTable])
    return CatalogMeasurement(
        day=row.day,
        measured_at=row.measured_at,
        schemas=row.schemas,
        relations=row.relations,
        database_bytes=row.database_bytes,
        catalog_bytes=sum(table.bytes for table in tables),
        tables=tables,
        jobs=dict(row.jobs),
        oldest_pending=row.oldest_pending,
    )


def _growth(earlier: CatalogMeasurement, latest: CatalogMeasurement, days: int) -> CatalogGrowth:
    return CatalogGrowth(
        days=days,
        since=earlier.day,
        schemas=latest.schemas - earlier.schemas,
        relations=latest.relations - earlier.relations,
        database_bytes=latest.database_bytes - earlier.database_bytes,
        catalog_bytes=latest.catalog_bytes - earlier.catalog_bytes,
    )


provide_catalog = create_service_provider(CatalogService)
