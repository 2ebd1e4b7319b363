"""Accounts are listed in the control plane's directory, by a keyed hash of their address.

Revision: 0015
Written: 2026-11-23
"""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "CREATE TRIGGER keep_account_directory AFTER INSERT OR DELETE ON user_account"
        " FOR EACH ROW EXECUTE FUNCTION platform.keep_account_directory()"
    )
    # Apart, since logging in updates the row as well, and changes nothing here.
    op.execute(
        "CREATE TRIGGER keep_changed_account AFTER UPDATE ON user_account FOR EACH ROW"
        " WHEN (OLD.email IS DISTINCT FROM NEW.email OR OLD.is_active IS DISTINCT FROM NEW.is_active)"
        " EXECUTE FUNCTION platform.keep_account_directory()"
    )
    # The accounts that are there already; where the tree is only tried out, the schema is nobody's.
    op.execute(
        "SELECT platform.repair_account_directory(substr(current_schema(), 3)::uuid)"
        " WHERE current_schema() ~ '^t_[0-9a-f]{32}$'"
    )


def downgrade() -> None:
    # The entries stay, for nobody: whoever goes forward again has them put right.
    op.execute("DROP TRIGGER keep_changed_account ON user_account")
    op.execute("DROP TRIGGER keep_account_directory ON user_account")
