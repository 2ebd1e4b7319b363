from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tenantry.kernel.settings import Settings
from tenantry.tenancy.capacity import check_connections
from tenantry.tenancy.context import ScopeTimes, control_scope
from tenantry.tenancy.database import Database
from tests.databases import Template
from tests.world import settings_for

CONTROL = control_scope(ScopeTimes(), read_only=True)


async def warnings(settings: Settings) -> list[dict[str, object]]:
    database = Database(settings.database_url or "", pool_size=1, connect_timeout=1)
    try:
        with capture_logs() as logs:
            await check_connections(settings, database, CONTROL)
        return [dict(log) for log in logs if log["log_level"] == "warning" and "allowed" in log]
    finally:
        await database.close()


async def test_more_connections_than_the_server_takes_are_warned_of(
    database_addresses: Template, tmp_path: Path
) -> None:
    (warning,) = await warnings(settings_for(database_addresses, tmp_path, database_connections=10_000))
    assert warning["allowed"] == 10_000
    assert isinstance(warning["taken"], int)
    assert await warnings(settings_for(database_addresses, tmp_path, database_connections=warning["taken"])) == []


@pytest.mark.parametrize("why", ["a pooler", "nobody there"])
async def test_nothing_is_said_of_a_server_that_cannot_be_asked(
    database_addresses: Template, tmp_path: Path, why: str
) -> None:
    overrides = (
        {"database_listen_url": database_addresses.app_url}
        if why == "a pooler"
        else {"database_url": "postgresql://nobody@127.0.0.1:1/nothing"}
    )
    assert await warnings(settings_for(database_addresses, tmp_path, database_connections=10_000, **overrides)) == []
