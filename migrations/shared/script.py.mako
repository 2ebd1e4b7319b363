"""${message}

Revision: ${up_revision}
After: ${down_revision | comma,n}
Written: ${create_date.date()}
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}

revision = ${repr(up_revision).replace("'", '"')}
down_revision = ${repr(down_revision).replace("'", '"')}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}

# True: reads rows in Python, so it is run by Alembic for each schema and not compiled to SQL.
online = False
# A text, why there is no way back: then downgrade() is `raise NotImplementedError(irreversible)` and nothing else.
irreversible: str | None = None


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
