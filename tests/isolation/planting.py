"""Rows of any table of a tenant's, with a value in each column that needs one."""

from __future__ import annotations

import datetime
import itertools
import re
import secrets
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Integer,
    LargeBinary,
    Numeric,
    Table,
    Text,
    Uuid,
    insert,
    inspect,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

__all__ = ("address_of", "plant", "plant_row", "words_of")

_numbers = itertools.count(1)


def address_of(user_id: object) -> str:
    """That of a user who was planted."""
    return f"planted-{user_id}@example.com"


async def plant(session: AsyncSession, model: type[Any], **given: object) -> dict[str, Any]:
    """Insert a row with a value in each column that needs one, parents first; returns its columns' values."""
    return await plant_row(session, inspect(model).local_table, given)


async def plant_row(session: AsyncSession, table: Table, given: Mapping[str, object]) -> dict[str, Any]:
    """Likewise, of a table."""
    values: dict[str, Any] = {}
    needed = {column.name for column in table.columns if not column.nullable} | _chosen(table, given)
    for column in table.columns:
        if column.name in given:
            values[column.name] = given[column.name]
        elif column.foreign_keys and column.name in needed:
            [key] = column.foreign_keys
            values[column.name] = (await plant_row(session, key.column.table, {}))[key.column.name]
        elif not column.nullable and (table.name, column.name) == ("user_account", "email"):
            values[column.name] = address_of(values["id"])
        elif not column.nullable:
            values[column.name] = _column_value(table, column)
    await session.execute(insert(table).values(**values))
    return values


def _chosen(table: Table, given: Mapping[str, object]) -> set[str]:
    """The first of columns of which a CHECK (num_nonnulls(…) = 1) wants one, where none is given."""
    found = set()
    for constraint in table.constraints:
        if isinstance(constraint, CheckConstraint) and (
            match := re.fullmatch(r"num_nonnulls\((.+)\) = 1", str(constraint.sqltext))
        ):
            names = match[1].split(", ")
            found |= set() if given.keys() & set(names) else {names[0]}
    return found


def _column_value(table: Table, column: Column[Any]) -> Any:
    kind, number = column.type, next(_numbers)
    if words := words_of(table, column):
        # The last one is the humblest: a member, not an owner whom rules of its own protect.
        return words[-1]
    if isinstance(kind, ARRAY):
        return []
    if isinstance(kind, JSONB):
        return {}
    if isinstance(kind, Boolean):
        # A user that is active, and no superuser; a webhook that is enabled.
        return column.name in {"is_active", "is_enabled"}
    if isinstance(kind, Integer):
        return _least(table, column) or number
    if isinstance(kind, LargeBinary):
        return secrets.token_bytes(32)
    if isinstance(kind, Text):
        return f"planted-{number}@example.com" if column.name == "email" else f"planted-{number}"
    python = _python_type(kind)
    if python is UUID:
        return uuid7()
    if isinstance(kind, Numeric):
        return Decimal(number)
    if isinstance(kind, Date):
        return datetime.datetime.now(datetime.UTC).date()
    if python is datetime.datetime or isinstance(kind, DateTime):
        return datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    raise NotImplementedError(f"teach tests/isolation/planting.py to fill in {table.name}.{column.name}: {kind!r}")


def _least(table: Table, column: Column[Any]) -> int | None:
    """Of a CHECK (… BETWEEN 1 AND 72) on the column."""
    for constraint in table.constraints:
        if isinstance(constraint, CheckConstraint) and (
            match := re.fullmatch(rf"{column.name} BETWEEN (\d+) AND \d+", str(constraint.sqltext))
        ):
            return int(match[1])
    return None


def _python_type(kind: Any) -> type | None:
    implementation = getattr(kind, "impl", kind)
    if isinstance(kind, Uuid) or "GUID" in type(kind).__name__:
        return UUID
    return datetime.datetime if isinstance(implementation, DateTime) else None


def words_of(table: Table, column: Column[Any]) -> list[str]:
    """The words of a CHECK (… IN ('a', 'b')) on the column."""
    start = f"{column.name} IN ("
    for constraint in table.constraints:
        if isinstance(constraint, CheckConstraint) and str(constraint.sqltext).startswith(start):
            return [word.strip(" '") for word in str(constraint.sqltext)[len(start) : -1].split(",")]
    return []
