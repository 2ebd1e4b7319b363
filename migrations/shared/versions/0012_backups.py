"""When everything was last backed up, in the platform's trail: for a metric that is sampled all the time.

Revision: 0012
Written: 2026-11-24
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_audit_entry_backup_completed",
        "audit_entry",
        ["id"],
        schema="platform",
        postgresql_where=sa.text("action = 'backup.completed'"),
    )


def downgrade() -> None:
    op.drop_index("ix_audit_entry_backup_completed", table_name="audit_entry", schema="platform")
