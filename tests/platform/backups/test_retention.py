"""What is pruned, and what never is."""

from __future__ import annotations

import datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from tenantry.platform.backups.format import BackupName, new_id
from tenantry.platform.backups.retention import Keep, to_keep
from tenantry.platform.backups.store import by_folder

ACME = UUID(int=1)
MOMENTS = st.datetimes(datetime.datetime(2020, 1, 1), datetime.datetime(2028, 12, 31), timezones=st.just(datetime.UTC))
NAMES = st.lists(MOMENTS, min_size=1, max_size=60).map(
    lambda moments: [BackupName(new_id(moment), ACME) for moment in moments]
)
KEEPS = st.builds(Keep, st.integers(1, 10), st.integers(0, 6), st.integers(0, 13), st.just(30))


@given(names=NAMES, keep=KEEPS)
def test_the_newest_stays_whatever_is_kept_and_no_more_than_was_asked_for(names: list[BackupName], keep: Keep) -> None:
    kept = to_keep(names, keep)
    assert max(names, key=lambda name: name.id) in kept
    assert len(kept) <= keep.daily + keep.weekly + keep.monthly
    assert kept <= set(names)


@given(names=NAMES, keep=KEEPS)
def test_pruning_twice_removes_no_more_than_once(names: list[BackupName], keep: Keep) -> None:
    once = to_keep(names, keep)
    assert to_keep(once, keep) == once


@given(names=NAMES, keep=KEEPS, more=st.integers(1, 5))
def test_who_keeps_more_keeps_at_least_the_same(names: list[BackupName], keep: Keep, more: int) -> None:
    larger = Keep(keep.daily + more, keep.weekly + more, keep.monthly + more, keep.purged)
    assert to_keep(names, keep) <= to_keep(names, larger)


@given(names=NAMES, keep=KEEPS)
def test_the_last_backup_of_each_of_the_last_days_stays(names: list[BackupName], keep: Keep) -> None:
    days = sorted({name.moment.date() for name in names}, reverse=True)[: keep.daily]
    kept = to_keep(names, keep)
    for day in days:
        assert max((name for name in names if name.moment.date() == day), key=lambda name: name.id) in kept


def test_a_year_of_nightly_backups_leaves_what_the_settings_say() -> None:
    first = datetime.datetime(2026, 1, 1, 2, 15, tzinfo=datetime.UTC)
    names = [BackupName(new_id(first + datetime.timedelta(days=day)), ACME) for day in range(365)]
    kept = sorted(name.moment.date().isoformat() for name in to_keep(names, Keep(7, 5, 12, 30)))
    assert kept[-7:] == [f"2026-12-{day}" for day in range(25, 32)]
    assert kept[:11] == [
        *("2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31", "2026-06-30"),
        *("2026-07-31", "2026-08-31", "2026-09-30", "2026-10-31", "2026-11-30"),
    ]
    # The Sundays that end weeks, of which one is a day of the last seven.
    assert set(kept[11:-7]) == {"2026-12-06", "2026-12-13", "2026-12-20"}


@given(names=NAMES)
def test_names_lead_back_to_what_they_are_of(names: list[BackupName]) -> None:
    for name in names:
        assert BackupName.of_key(name.manifest_key) == (name, "manifest")
        assert BackupName.of_key(name.payload_key) == (name, "backup")
    shared = BackupName(names[0].id, None)
    assert by_folder((*names, shared)) == {ACME: names, None: [shared]}


@given(st.text(max_size=80) | st.just("tenants/x/20261124T021500Z-1a2b3c4d.backup"))
def test_whatever_else_lies_there_is_no_backup(key: str) -> None:
    assert BackupName.of_key(key) is None
