from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import temporary_folder


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder for servers that the user `nobody` may pass; each test stops its own servers before it goes."""
    folder = temporary_folder("tenantry-dev-")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
