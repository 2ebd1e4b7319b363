"""The database's catalog on the wire."""

from __future__ import annotations

from datetime import date, datetime

from tenantry.kernel.schema import BaseStruct

__all__ = ("CatalogGrowth", "CatalogMeasurement", "CatalogOverview", "CatalogTable")


class CatalogTable(BaseStruct):
    """One of the catalog's tables that grow with every schema."""

    name: str
    bytes: int
    """With its indexes."""
    table_bytes: int
    index_bytes: int
    live: int
    """Rows, as the server's statistics estimate them."""
    dead: int
    """Rows that wait for a vacuum, likewise."""
    vacuumed_at: datetime | None
    """By whomever, since the server's statistics were last reset."""
    analyzed_at: datetime | None


class CatalogMeasurement(BaseStruct):
    """What there was on a day."""

    day: date
    """In UTC."""
    measured_at: datetime
    schemas: int
    """Organizations' schemas, those of the warm pool included."""
    relations: int
    """Tables, indexes and all else that has a row in pg_class."""
    database_bytes: int
    catalog_bytes: int
    """Of all `tables` together."""
    tables: list[CatalogTable]
    jobs: dict[str, int]
    """Rows of the outbox by their status."""
    oldest_pending: float | None
    """Seconds since the first row that no relay had taken yet was due."""


class CatalogGrowth(BaseStruct):
    """By how much there was more on the last day than `days` before, or less."""

    days: int
    since: date
    """What is compared with: the last day that was measured by then."""
    schemas: int
    relations: int
    database_bytes: int
    catalog_bytes: int


class CatalogOverview(BaseStruct):
    """The last measurement, and what has changed."""

    latest: CatalogMeasurement | None
    """None: nothing was measured yet."""
    growth: list[CatalogGrowth]
    """Over 1, 7 and 30 days, as far back as there are measurements."""
