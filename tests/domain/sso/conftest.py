"""A real provider for each process of the tests, and an issuer that lies for each test that wants one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.domain.sso.issuer import Issuer, open_issuer
from tests.domain.sso.provider import Provider, open_provider
from tests.domain.sso.support import Browser
from tests.world import World


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with open_provider(tmp_path_factory.mktemp("provider")) as opened:
        yield opened


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with open_issuer() as opened:
        yield opened


@pytest.fixture
async def browser(world: World) -> AsyncIterator[Browser]:
    opened = Browser(world)
    yield opened
    await opened.http.aclose()
