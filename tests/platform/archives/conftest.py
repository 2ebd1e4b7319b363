"""One database for each module of this folder, in which every test undoes what it did."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tenantry.tenancy.connection import DriverConnection
from tests.databases import Template, clone_database, drop_database
from tests.platform.archives.support import as_owner


@pytest.fixture(scope="module")
async def database(template: Template) -> AsyncIterator[Template]:
    addresses = await clone_database(template)
    yield addresses
    await drop_database(addresses)


@pytest.fixture
async def owner(database: Template) -> AsyncIterator[DriverConnection]:
    """The owner's connection, inside a transaction that is undone afterwards."""
    async with as_owner(database.owner_url) as connection:
        yield connection
