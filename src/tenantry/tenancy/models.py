"""The two families of tables, and the tenant itself.

A model that inherits from `SharedBase` lives once, in the schema `platform`; one that inherits from `TenantBase`
lives in the schema of every tenant. Each family has its own MetaData, since Advanced Alchemy's bases otherwise share
one and the shared tables would turn up in every tenant's migrations.
"""

from __future__ import annotations

import datetime
from typing import Any
from uuid import UUID

from advanced_alchemy.base import AdvancedDeclarativeBase, CommonTableAttributes, convention, metadata_registry
from advanced_alchemy.mixins import AuditColumns
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Constraint,
    FetchedValue,
    ForeignKey,
    Index,
    MetaData,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from tenantry.tenancy.scope import SHARED_SCHEMA, schema_name

__all__ = (
    "SharedBase",
    "SlugKey",
    "Tenant",
    "TenantBase",
    "TenantRecord",
    "length_check",
    "one_of_check",
    "schema_name",
)

metadata_registry.set("shared", MetaData(schema=SHARED_SCHEMA, naming_convention=convention))
metadata_registry.set("tenant", MetaData(naming_convention=convention))


def length_check(column: str, maximum: int, *, minimum: int = 0) -> CheckConstraint:
    """Bound a text column's length in characters.

    `text` and a CHECK, never `varchar(n)`: a length that differs between two tenants for the time of a rollout would
    change the column's type, and every prepared statement on a pooled connection would fail in turn.
    """
    test = (
        f"char_length({column}) <= {maximum}"
        if not minimum
        else f"char_length({column}) BETWEEN {minimum} AND {maximum}"
    )
    return CheckConstraint(test, name=f"{column}_length")


def one_of_check(column: str, values: tuple[str, ...]) -> CheckConstraint:
    """Bound a text column to some words; a native enum would have one type per tenant and break drivers' caches."""
    words = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({words})", name=f"{column}_known")


class _Keyed(CommonTableAttributes, AdvancedDeclarativeBase, AsyncAttrs):
    """`UUIDv7Base` without its `sa_orm_sentinel` column.

    That column is an integer that is always NULL, in every table of every tenant. A key with a client-side default
    does its work, being marked as the sentinel of batched inserts.
    """

    __abstract__ = True

    id: Mapped[UUID] = mapped_column(default=uuid7, primary_key=True, insert_sentinel=True, sort_order=-100)


class SharedBase(AuditColumns, _Keyed):
    """A table of the control plane, in the schema `platform`."""

    __abstract__ = True
    __bind_key__ = "shared"


class TenantRecord(_Keyed):
    """A table in every tenant's schema whose rows never change, and so have no time of their last change."""

    __abstract__ = True
    __bind_key__ = "tenant"


class TenantBase(AuditColumns, _Keyed):
    """A table in every tenant's schema."""

    __abstract__ = True
    __bind_key__ = "tenant"


class SlugKey:
    """A short name, unique in its table, that a URL can carry."""

    slug: Mapped[str] = mapped_column(Text)

    @staticmethod
    def constraints(table: str) -> tuple[Constraint, ...]:
        """The constraints that the table `table` must name in its `__table_args__`."""
        return UniqueConstraint("slug", name=f"uq_{table}_slug"), length_check("slug", 63, minimum=1)


TENANT_STATES = ("provisioning", "active", "suspended", "archived", "purging", "purged", "failed")


class Tenant(SharedBase):
    """One customer organization."""

    __tablename__ = "tenant"
    __table_args__ = (
        UniqueConstraint("slug", name="uq_tenant_slug"),
        CheckConstraint("slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'", name="slug_form"),
        length_check("name", 200, minimum=1),
        length_check("status_reason", 1000),
        one_of_check("status", TENANT_STATES),
        CheckConstraint("jsonb_typeof(overrides) = 'object'", name="overrides_object"),
        Index("ix_tenant_purge_after", "purge_after", postgresql_where=text("status = 'purging'")),
    )

    slug: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text, default="provisioning")
    status_reason: Mapped[str | None] = mapped_column(Text)
    status_changed_at: Mapped[datetime.datetime] = mapped_column(default=lambda: datetime.datetime.now(datetime.UTC))
    plan: Mapped[str] = mapped_column(Text, ForeignKey(f"{SHARED_SCHEMA}.plan.slug"))
    owner_email: Mapped[str] = mapped_column(Text)
    revision: Mapped[str | None] = mapped_column(Text)
    """The ledger's copy of the schema's `alembic_version`, written in the same transaction; None without a schema."""
    overrides: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict, server_default=text("'{}'"))
    """Limits of its own in place of its plan's, by the names of `tenantry.tenancy.plan.PlanLimits`."""
    archive_key: Mapped[str | None] = mapped_column(Text)
    """Where the data of an archived tenant lie in the storage; None while they are in its schema."""
    status_before: Mapped[str | None] = mapped_column(Text)
    """What `undelete` brings a deleted tenant back to."""
    purge_after: Mapped[datetime.datetime | None]
    """When the grace time of a deleted tenant ends."""
    changed_xid: Mapped[int] = mapped_column(
        BigInteger, index=True, server_default=FetchedValue(), server_onupdate=FetchedValue()
    )
    """The transaction that last changed the row, set by a trigger; the registries follow it."""

    @property
    def schema_name(self) -> str:
        return schema_name(self.id)
