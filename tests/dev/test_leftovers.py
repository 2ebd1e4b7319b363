from __future__ import annotations

import os

import pytest

from tests.databases import Template, clone_database
from tests.leftovers import _OURS, deployments_of, drop_databases, leftovers_of
from tests.servers import ADMIN_URL, RUN, make_database_name


async def test_a_runs_databases_are_found_and_dropped(template: Template) -> None:
    addresses = await clone_database(template)
    server, run = os.environ[ADMIN_URL], os.environ[RUN]
    assert {addresses.name, template.name} <= set(await leftovers_of(server, run=run))
    assert addresses.name in await leftovers_of(server)
    assert addresses.name not in await leftovers_of(server, run="00000000")
    await drop_databases(server, [addresses.name])
    assert addresses.name not in await leftovers_of(server)


async def test_a_server_on_which_there_are_test_runs_alone_is_nobodys_deployment(template: Template) -> None:
    assert await deployments_of(os.environ[ADMIN_URL]) == []


@pytest.mark.parametrize(
    "name", ["tenantry", "tenantry_production", "tenantry_test_cafe", "other_test_0123abcd_main_1"]
)
def test_a_database_that_no_run_has_made_is_never_taken_for_one(name: str) -> None:
    assert _OURS.fullmatch(name) is None
    assert _OURS.fullmatch(make_database_name("empty"))
