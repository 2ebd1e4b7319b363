"""The doctor's patient: one for each process of the tests, healthy whenever a test begins."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.conftest import _keep_logging as _keep_logging
from tests.doctor.support import Patient, open_patient


@pytest.fixture(scope="session")
def patient() -> Iterator[Patient]:
    with open_patient() as opened:
        yield opened
