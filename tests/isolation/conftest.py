"""Tenants below HTTP, made once for each module of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.databases import Template
from tests.isolation.estate import Estate, open_estate

# Before they are imported, that is.
pytest.register_assert_rewrite("tests.isolation.machine", "tests.isolation.routes")


@pytest.fixture(scope="module")
async def estate(template: Template) -> AsyncIterator[Estate]:
    """A database with two tenants."""
    async with open_estate(template) as opened:
        yield opened


@pytest.fixture(scope="module")
async def admin(estate: Estate) -> AsyncIterator[asyncpg.Connection[Any]]:
    """The administrator's connection to that database: who kills backends and holds locks."""
    connection = await asyncpg.connect(estate.addresses.admin_url)
    yield connection
    await connection.close()
