"""Jobs that come back by the clock.

Revision: 0004
Written: 2026-11-23
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "schedule",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("next_run_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_run_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 100", name=op.f("ck_schedule_name_length")),
        sa.CheckConstraint("char_length(timezone) BETWEEN 1 AND 64", name=op.f("ck_schedule_timezone_length")),
        sa.ForeignKeyConstraint(["tenant_id"], ["platform.tenant.id"], name=op.f("fk_schedule_tenant_id_tenant")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule")),
        sa.UniqueConstraint("tenant_id", "name", name="uq_schedule_tenant_id_name", postgresql_nulls_not_distinct=True),
        schema="platform",
    )
    op.create_index(
        "ix_schedule_next_run_at_enabled",
        "schedule",
        ["next_run_at"],
        schema="platform",
        postgresql_where=sa.text("enabled"),
    )
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON platform.schedule TO tenantry_control")


def downgrade() -> None:
    op.drop_table("schedule", schema="platform")
