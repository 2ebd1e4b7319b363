from __future__ import annotations

from sqlalchemy import text

from tenantry.tenancy.database import owner_engine
from tests.databases import Template


async def test_the_server_ends_an_owner_that_hangs_in_a_transaction(database_addresses: Template) -> None:
    """Else the roles that it has granted stay locked, and nobody in the cluster makes a tenant."""
    engine = owner_engine(database_addresses.owner_url)
    try:
        async with engine.connect() as connection:
            limit = await connection.scalar(text("SHOW idle_in_transaction_session_timeout"))
    finally:
        await engine.dispose()
    assert limit == "1min"
