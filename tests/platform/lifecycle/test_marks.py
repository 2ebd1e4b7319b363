"""What a masked clone keeps: decided for every column of a tenant, also for those that are yet to come."""

from __future__ import annotations

import re

from sqlalchemy import ARRAY, CheckConstraint, Column, DateTime, LargeBinary, String
from sqlalchemy.dialects.postgresql import INET, JSON, JSONB

from tenantry.features import TENANT_METADATA

KEPT = {
    "account_policy.domains": "of organizations, not of people",
    "audit_event.actor": "an id, or one of our words",
    "audit_event.name": "an event's",
    "audit_event.payload": "ids, numbers and our own words: an event that could say more is refused",
    "audit_event.request_id": "a request's id",
    "audit_seal.hash": "of ids and digests",
    "audit_seal.previous_hash": "likewise",
    "audit_sealed_event.digest": "of an event",
    "directory_group.external_id": "a directory's id of a group",
    "notification.actor": "as an event's",
    "notification.kind": "an event's name",
    "notification.payload": "an event's",
    "notification_preference.kind": "an event's name",
    "role.description": "the catalogue's, or an administrator's words about a role",
    "role.name": "a role's",
    "role.permissions": "names of permissions",
    "role.slug": "a role's",
    "service_account.description": "about a machine",
    "service_account.name": "a machine's",
    "tag.description": "about a tag",
    "tag.name": "a tag's",
    "tag.slug": "a tag's",
    "team.description": "about a team",
    "team.name": "a team's",
    "team.slug": "a team's",
    "user_account.locale": "a language",
    "user_account.time_zone": "a part of the world",
}
"""Columns that can hold words and are not masked, and what they hold. To add one is a decision: who is in them?

Those that can hold a few words of ours alone tell of nobody, and are not in it.
"""

_TELLING = re.compile(r"mail|phone|avatar|picture|photo|address|birth|gender|(first|last|full)_name|user_agent|\bip\b")


def _holds_words(column: Column[object]) -> bool:
    return isinstance(column.type, String | ARRAY | JSON | JSONB | LargeBinary | INET) and not any(
        # What `one_of_check` has made.
        isinstance(constraint, CheckConstraint) and str(constraint.sqltext).startswith(f"{column.name} IN (")
        for constraint in column.table.constraints
    )


def test_every_column_that_can_hold_words_is_marked_or_known_to_tell_of_nobody() -> None:
    unmarked = {
        f"{table.name}.{column.name}"
        for table in TENANT_METADATA.tables.values()
        if not table.info.get("secret")
        for column in table.columns
        if _holds_words(column) and not column.info.keys() & {"personal", "secret"}
    }
    assert unmarked == KEPT.keys(), "mark it `personal` or `secret`, or say here why a masked clone may keep it"


def test_no_column_whose_name_tells_of_a_person_is_unmarked() -> None:
    for table in TENANT_METADATA.tables.values():
        for column in table.columns:
            if _TELLING.search(column.name) and not isinstance(column.type, DateTime):
                assert table.info.get("secret") or column.info.keys() & {"personal", "secret"}, column


def test_no_key_is_masked() -> None:
    """Two tables would not fit together any more, and a role is known by its slug."""
    marked = {
        column
        for table in TENANT_METADATA.tables.values()
        for column in table.columns
        if column.info.keys() & {"personal", "secret"}
    }
    assert marked
    for column in marked:
        assert not column.primary_key
        assert not column.foreign_keys
        assert column.info.get("personal") in {None, "email", "name", "text", "url"}
