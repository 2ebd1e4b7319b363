"""Every way to use the chart, rendered once in each process."""

from __future__ import annotations

import pytest

from tests.chart.cases import CASES, rendered
from tests.chart.rendering import Rendering


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rendering(case: str) -> Rendering:
    return Rendering(rendered(case))


@pytest.fixture
def full() -> Rendering:
    """With everything that the chart can make."""
    return Rendering(rendered("all-options"))
