from __future__ import annotations

import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from tenantry.kernel.home import (
    HomeAddresses,
    OwnerAddresses,
    complete,
    read_addresses,
    read_owner_addresses,
    write_addresses,
)
from tenantry.kernel.settings import SettingsError, load_settings

APP, OWNER = "postgresql://tenantry_app:app-secret@db/tenantry", "postgresql://tenantry_owner:owner-secret@db/tenantry"
REDIS = "redis://:redis-secret@cache/0"
ADMIN = "postgresql://postgres:admin-secret@db/tenantry"


def write(home: Path, *, made_from: str | None = None) -> None:
    write_addresses(
        home,
        HomeAddresses(database_url=APP, redis_url=REDIS, made_from=made_from),
        OwnerAddresses(database_owner_url=OWNER, superuser_url=ADMIN),
    )


def test_what_is_left_out_is_taken_from_the_home(tmp_path: Path) -> None:
    write(tmp_path)
    settings = complete(load_settings({"TENANTRY_HOME": str(tmp_path)}), owner=True)
    assert (settings.database_url, settings.redis_url) == (APP, REDIS)
    assert settings.database_owner_url == SecretStr(OWNER)


def test_what_is_set_stays(tmp_path: Path) -> None:
    write(tmp_path)
    other = "postgresql://tenantry_app:x@elsewhere/other"
    env = {"TENANTRY_HOME": str(tmp_path), "TENANTRY_DATABASE_URL": other}
    assert complete(load_settings(env)).database_url == other
    # The home's owner is another database's.
    with pytest.raises(SettingsError, match="TENANTRY_DATABASE_OWNER_URL"):
        complete(load_settings(env), owner=True)


def test_a_serving_process_does_not_even_read_the_owner_s_file(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "owner.json").write_text("not to be read")
    settings = complete(load_settings({"TENANTRY_HOME": str(tmp_path)}))
    assert settings.database_owner_url is None
    assert "owner-secret" not in (tmp_path / "addresses.json").read_text()
    with pytest.raises(SettingsError, match=r"owner\.json cannot be read"):
        complete(load_settings({"TENANTRY_HOME": str(tmp_path)}), owner=True)


def test_an_administrator_s_address_gives_way_to_what_was_made_from_it(tmp_path: Path) -> None:
    write(tmp_path, made_from="postgresql://postgres:***@db/tenantry")
    env = {"TENANTRY_HOME": str(tmp_path), "TENANTRY_DATABASE_URL": ADMIN}
    settings = complete(load_settings(env), owner=True)
    assert settings.database_url == APP
    assert settings.database_owner_url == SecretStr(OWNER)
    assert "admin-secret" not in (tmp_path / "addresses.json").read_text()


def test_the_files_are_for_this_user_alone(tmp_path: Path) -> None:
    write(tmp_path)
    for name in ("addresses.json", "owner.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["addresses.json", "owner.json"]


def test_without_either_everything_that_is_missing_is_listed(tmp_path: Path) -> None:
    assert read_addresses(tmp_path) is None
    assert read_owner_addresses(tmp_path) is None
    settings = load_settings({"TENANTRY_HOME": str(tmp_path)})
    with pytest.raises(SettingsError) as caught:
        complete(settings, owner=True)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "TENANTRY_DATABASE_URL",
        "TENANTRY_DATABASE_OWNER_URL",
        "TENANTRY_REDIS_URL",
    ]
    with pytest.raises(SettingsError) as caught:
        complete(settings, redis=False)
    assert len(caught.value.problems) == 1
