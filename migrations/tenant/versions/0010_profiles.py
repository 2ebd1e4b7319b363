"""Language and time zone of people.

Revision: 0010
Written: 2026-11-23
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

accepted = {
    "constraint-missing-not-valid": "the columns are new, NULL in every row, and there is a row for each person",
}


def upgrade() -> None:
    op.add_column("user_account", sa.Column("locale", sa.Text(), nullable=True))
    op.add_column("user_account", sa.Column("time_zone", sa.Text(), nullable=True))
    op.create_check_constraint(op.f("ck_user_account_locale_length"), "user_account", "char_length(locale) <= 35")
    op.create_check_constraint(op.f("ck_user_account_time_zone_length"), "user_account", "char_length(time_zone) <= 64")


def downgrade() -> None:
    op.drop_constraint(op.f("ck_user_account_time_zone_length"), "user_account", type_="check")
    op.drop_constraint(op.f("ck_user_account_locale_length"), "user_account", type_="check")
    op.drop_column("user_account", "time_zone")
    op.drop_column("user_account", "locale")
