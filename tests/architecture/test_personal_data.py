"""Whatever is about a person is said to be: to be handed out when they ask, and gone when they are erased."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import Column, inspect

from tenantry.domain.identity.users.models import User
from tenantry.domain.teams.models import TeamMember
from tenantry.domain.teams.schemas import MembershipCopy
from tenantry.features import PERSONAL_DATA, TENANT_METADATA
from tenantry.kernel.feature import Feature
from tenantry.kernel.personal import NotCopied, PersonalCatalogue, PersonalData

TO_ACCOUNTS = sorted(
    f"{table.name}.{column.name}"
    for table in TENANT_METADATA.tables.values()
    for column in table.columns
    for key in column.foreign_keys
    if key.column.table.name == "user_account"
)
"""Columns that say whose a row is."""


def _column(name: str) -> Column[Any]:
    table, _, column = name.partition(".")
    return TENANT_METADATA.tables[table].columns[column]


def _declared(each: PersonalData | NotCopied) -> list[str]:
    mapper: Any = inspect(each.model)
    return [f"{mapper.local_table.name}.{mapper.columns[name].name}" for name in each.by]


def test_there_are_rows_that_are_somebodys() -> None:
    assert {"user_session.user_id", "api_key.created_by_id", "notification_inbox.id"} <= set(TO_ACCOUNTS)


def test_every_foreign_key_to_an_account_is_declared_once() -> None:
    rows: list[PersonalData | NotCopied] = [*PERSONAL_DATA.sections, *PERSONAL_DATA.exceptions]
    declared = [name for each in rows for name in _declared(each)]
    assert [name for name, count in Counter(declared).items() if count > 1] == []
    assert sorted(declared) == TO_ACCOUNTS, (
        "say in `personal_data` of the feature's manifest which section of a person's copy these rows are, or why none"
    )


@pytest.mark.parametrize("name", TO_ACCOUNTS)
def test_the_database_erases_by_every_foreign_key_to_an_account(name: str) -> None:
    """RESTRICT would leave a person who cannot be erased; and what a job deletes, another may just have added."""
    [key] = _column(name).foreign_keys
    assert key.ondelete in {"CASCADE", "SET NULL"}
    assert (key.ondelete == "SET NULL") <= bool(_column(name).nullable)


@pytest.mark.parametrize("name", TO_ACCOUNTS)
def test_what_is_somebodys_is_found_by_an_index(name: str) -> None:
    """Every erasure asks each of these tables; PostgreSQL indexes no foreign key by itself."""
    column = _column(name)
    whole = [each for each in column.table.indexes if each.dialect_options["postgresql"]["where"] is None]
    leading = {index.expressions[0] for index in whole}
    for constraint in column.table.constraints:
        columns = list(getattr(constraint, "columns", ()))
        if columns and type(constraint).__name__ in {"PrimaryKeyConstraint", "UniqueConstraint"}:
            leading.add(columns[0])
    assert column in leading


def test_what_is_not_copied_has_a_reason() -> None:
    for each in PERSONAL_DATA.exceptions:
        assert len(each.reason) > 20, each


def test_every_table_with_a_marked_column_is_in_a_copy() -> None:
    marked = {
        table.name
        for table in TENANT_METADATA.tables.values()
        for column in table.columns
        # `text` is what people write into what is the organization's: nobody can tell whom it speaks of.
        if column.info.get("personal") not in {None, "text"}
    }
    copied = {inspect(section.model).local_table.name for section in PERSONAL_DATA.sections}
    assert marked
    assert marked <= copied


def test_no_section_hands_out_a_secret() -> None:
    for section in PERSONAL_DATA.sections:
        mapper: Any = inspect(section.model)
        for name in section.struct.__struct_fields__:
            column = mapper.columns.get(name)
            assert column is None or not column.info.get("secret"), (section.section, name)
            assert not any(word in name for word in ("digest", "password", "secret", "token")), (section.section, name)


def test_a_section_is_declared_once_and_says_whose_rows_it_has() -> None:
    section = PersonalData("memberships", TeamMember, MembershipCopy, by=("user_id",))
    another = PersonalData("memberships", User, MembershipCopy, where=lambda person: User.id == person.id)
    with pytest.raises(ValueError, match="'memberships' is declared twice"):
        PersonalCatalogue([Feature("one", personal_data=(section,)), Feature("two", personal_data=(another,))])
    with pytest.raises(TypeError, match="expected `by` or `where`"):
        PersonalData("memberships", TeamMember, MembershipCopy)
    with pytest.raises(TypeError, match="expected PersonalData or NotCopied"):
        PersonalCatalogue([Feature("one", personal_data=("memberships",))])
