"""The table of personal data in docs/operations/data-protection.md, as the manifests have it.

`python -m tests.docs.personal_table` prints it.
"""

from __future__ import annotations

import sys
from typing import Any

from sqlalchemy import inspect

from tenantry.features import PERSONAL_DATA, TENANT_METADATA
from tenantry.kernel.personal import NotCopied, PersonalData

__all__ = ("table",)

# What no foreign key decides: the account itself, and what features' `erasing` removes.
_BY_HAND = {
    "audit_event": "kept, with ids that lead nowhere",
    "sign_up": "deleted",
    "user_account": "deleted",
}


def table() -> str:
    """A row for each table and section: columns that say whose a row is, the section of the copy, what erasure does."""
    declared: list[PersonalData | NotCopied] = [*PERSONAL_DATA.sections, *PERSONAL_DATA.exceptions]
    rows = sorted(map(_row, declared))
    return "\n".join(
        ("| table | whose it is | in a person's copy | when they are erased |", "|---|---|---|---|", *rows)
    )


def _row(each: PersonalData | NotCopied) -> str:
    mapper: Any = inspect(each.model)
    name = str(mapper.local_table.name)
    columns = [str(mapper.columns[attribute].name) for attribute in each.by]
    copy = f"`{each.section}`" if isinstance(each, PersonalData) else f"no: {each.reason}"
    whose = ", ".join(f"`{column}`" for column in columns) or "not by a key"
    return f"| `{name}` | {whose} | {copy} | {_erased(name, columns)} |"


def _erased(name: str, columns: list[str]) -> str:
    """What the foreign keys to an account say; without one, a hook does it or nothing has to be done."""
    deletes = {
        key.ondelete
        for column in columns
        for key in TENANT_METADATA.tables[name].columns[column].foreign_keys
        if key.column.table.name == "user_account"
    }
    if not deletes:
        return _BY_HAND[name]
    return "deleted" if deletes == {"CASCADE"} else "kept, without the person"


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
