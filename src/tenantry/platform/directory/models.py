"""In which organizations an address has an account, by a keyed hash of it.

Plain tables and no models: nobody who serves may read them. Triggers of the tenants' tables write them, and functions
of the control plane answer for one address at a time (`migrations/shared/versions/0006_sign_ups_and_directory.py`).
"""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Index, Integer, LargeBinary, Table, Uuid

from tenantry.tenancy.models import SharedBase

__all__ = ("account_directory", "account_directory_key")

account_directory = Table(
    "account_directory",
    SharedBase.metadata,
    # HMAC-SHA-256 of the normalized address.
    Column("digest", LargeBinary, primary_key=True),
    # No foreign key: each account that is made would lock its tenant's row against whoever changes that.
    Column("tenant_id", Uuid, primary_key=True),
    Index("ix_account_directory_tenant_id", "tenant_id"),
)

account_directory_key = Table(
    "account_directory_key",
    SharedBase.metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("inner_block", LargeBinary, nullable=False),
    Column("outer_block", LargeBinary, nullable=False),
    CheckConstraint("id = 1", name="one"),
)
