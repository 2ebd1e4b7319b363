"""A release is deployed, and taken back, under load: not one request fails, and no job is lost or done twice.

Three API processes behind a balancer, three workers and two provisioners, each the real program in a process of its
own. The next release (`tests/faults/upgrades.py`) has a migration of the shared schema and one of tenants', and code
that needs both. The order is that of docs/operations/upgrading.md, "Deploying a release".
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.databases import Template
from tests.faults.stage import open_stage

pytestmark = pytest.mark.slow


async def test_a_release_is_deployed_and_no_request_fails_and_no_job_is_lost_or_done_twice(
    database_addresses: Template, tmp_path: Path
) -> None:
    async with open_stage(database_addresses, tmp_path, each=3) as stage:
        estate, visitors, now, later = stage.estate, stage.visitors, stage.now, stage.later
        # 1. The shared schema. The release that is there goes on with it.
        await estate.run(later, "migrate", "shared")
        await visitors.more(60, now)
        # 2. API processes and workers, one by one, each of either kind as its turn comes.
        for number in range(3):
            await estate.replace_api(later, visitors)
            await estate.replace_worker(later)
            await stage.create_tenant(f"during-{number}")
        await estate.ended()
        assert await stage.revisions() == {now.tree.head}
        # 3. The provisioners: from now on, tenants are made at the new revision.
        await estate.replace_provisioners(later)
        await stage.create_tenant("after")
        # 4. The tenants that are there, three of them first.
        before = visitors.answers.total()
        output = await estate.run(later, "migrate", "tenants", "--canary", "3", "--yes")
        assert visitors.answers.total() > before, "nobody was there while it was rolled out"
        assert await stage.revisions() == {later.tree.head}, output
        await visitors.more(60, later)
        assert {code for code, _ in visitors.answers} == {now.code, later.code}


async def test_a_release_is_taken_back_before_its_rollout_and_deployed_again(
    database_addresses: Template, tmp_path: Path
) -> None:
    async with open_stage(database_addresses, tmp_path, each=1) as stage:
        estate, visitors, now, later = stage.estate, stage.visitors, stage.now, stage.later
        await estate.run(later, "migrate", "shared")
        for release in (later, now, later):
            # What deploys a release runs this first, and a release that comes back finds the newer one's schema.
            await estate.run(release, "migrate", "shared")
            await estate.replace_api(release, visitors)
            await estate.replace_worker(release)
            await estate.ended()
            await visitors.more(60, release)
            assert await stage.revisions() == {now.tree.head}
