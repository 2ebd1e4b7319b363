"""What was measured of the database's catalog, a row a day."""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import BigInteger, Date, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import SharedBase

__all__ = ("CatalogStatistic",)


class CatalogStatistic(SharedBase):
    """One day; a day that is measured twice is as it was the last time."""

    __tablename__ = "catalog_statistic"
    __table_args__ = (UniqueConstraint("day", name="uq_catalog_statistic_day"),)

    day: Mapped[datetime.date] = mapped_column(Date)
    """In UTC."""
    measured_at: Mapped[datetime.datetime]
    schemas: Mapped[int] = mapped_column(BigInteger)
    """Tenants', the warm pool's included."""
    relations: Mapped[int] = mapped_column(BigInteger)
    """Rows of pg_class: tables, indexes, TOAST and all else, of the whole database."""
    database_bytes: Mapped[int] = mapped_column(BigInteger)
    tables: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    """`CatalogTable` each."""
    jobs: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """Rows of the outbox by their status."""
    oldest_pending: Mapped[float | None]
    """Seconds since the first row that no relay has taken yet was due."""
