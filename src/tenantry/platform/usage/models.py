"""What a tenant has used on a day.

A plain table and no model: its rows are added up where they are written, and read in sums.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, Date, DateTime, Index, Table, Text, Uuid, text

from tenantry.tenancy.models import SharedBase

__all__ = ("usage_day",)

usage_day = Table(
    "usage_day",
    SharedBase.metadata,
    # No foreign key: a tenant's row outlives it as a tombstone, and is not locked by whoever counts.
    Column("tenant_id", Uuid, primary_key=True),
    # In UTC.
    Column("day", Date, primary_key=True),
    # That the tenant was on when the day ended, as far as anything was written down on it.
    Column("plan", Text, nullable=False),
    Column("requests", BigInteger, nullable=False, server_default=text("0")),
    # Which counter in Redis is written down (tenantry.tenancy.use), and how far. Of former ones `requests` has the sum.
    Column("requests_epoch", Text),
    Column("requests_seen", BigInteger, nullable=False, server_default=text("0")),
    Column("jobs", BigInteger, nullable=False, server_default=text("0")),
    Column("jobs_epoch", Text),
    Column("jobs_seen", BigInteger, nullable=False, server_default=text("0")),
    # The most that was found on the day; NULL where nobody has looked.
    Column("storage_bytes", BigInteger),
    Column("seats", BigInteger),
    Column("measured_at", DateTime(timezone=True)),
    CheckConstraint(
        "requests >= requests_seen AND jobs >= jobs_seen AND requests_seen >= 0 AND jobs_seen >= 0", name="counted"
    ),
    Index("ix_usage_day_day", "day"),
)
