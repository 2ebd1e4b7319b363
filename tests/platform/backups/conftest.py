"""A deployment for each test, whose provisioner the test drives, and its backups."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.databases import Template
from tests.platform.backups.support import Backups, open_backups
from tests.platform.lifecycle.support import open_deployment
from tests.tree import tenant_tree as tenant_tree
from tests.world import World


@pytest.fixture
async def api(database_addresses: Template, tmp_path: Path) -> AsyncIterator[World]:
    async with open_deployment(database_addresses, tmp_path / "home") as opened:
        yield opened


@pytest.fixture
async def backups(database_addresses: Template, tmp_path: Path) -> AsyncIterator[Backups]:
    async with open_backups(database_addresses, tmp_path / "home") as opened:
        yield opened
