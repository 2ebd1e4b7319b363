"""A purge whose provisioner is killed: after every step, by SIGKILL, and taken up by another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tenantry.platform.deletion.certificate import verify_certificate
from tests.databases import Template
from tests.faults.crashing import crash_everywhere
from tests.platform.belongings import (
    FILES,
    KEYS,
    QUEUE_KEYS,
    Furnished,
    ask_for_purge,
    furnish,
    remains,
)
from tests.platform.support import as_admin, open_api
from tests.world import World

pytestmark = pytest.mark.slow


@pytest.fixture
async def api(database_addresses: Template, tmp_path: Path) -> AsyncIterator[World]:
    async with open_api(database_addresses, tmp_path, provision_wait=0.05) as opened:
        yield opened


async def test_a_purge_that_is_killed_after_any_step_ends_alike_and_its_certificate_says_what_there_was(
    api: World, tmp_path: Path
) -> None:
    neighbour = await furnish(api, "globex")
    before = await remains(api, neighbour)
    died: list[str] = []

    async def ask(number: int) -> Furnished:
        tenant = await furnish(api, f"acme-{number}", teams=number)
        await ask_for_purge(api, tenant, reason="Their contract has ended")
        return tenant

    async def check(tenant: Furnished) -> None:
        assert await remains(api, tenant) == {"keys": 0, "files": [], "catalog": [], "rows": []}
        assert await remains(api, neighbour) == before
        answer = await api.operator.get(f"/platform/certificates/{tenant.id}")
        assert answer.status_code == 200
        said = verify_certificate(answer.json()["jws"]).certificate
        assert said == answer.json()["certificate"]
        removed = said["removed"]
        assert removed["redis"] == {"keys": KEYS}
        assert removed["queues"] == {"keys": QUEUE_KEYS}
        assert removed["files"] == {"objects": len(FILES), "bytes": sum(map(len, FILES.values()))}
        assert removed["schema"]["tables"]["team"] == tenant.teams
        assert removed["schema"]["tables"]["user_account"] == 1
        assert not any(said["verified"].values())
        async with as_admin(api.addresses) as admin:
            row = await admin.fetchrow("SELECT slug, status FROM platform.tenant WHERE id = $1", tenant.id)
            assert row is not None
            assert tuple(row) == (f"purged-{tenant.id.hex}", "purged")
            acts = await admin.fetch(
                "SELECT action FROM platform.audit_entry WHERE tenant_id = $1 ORDER BY id", tenant.id
            )
        # However often it was begun, it was counted once and ended once.
        assert [act["action"] for act in acts].count("tenant.purge-inventory") == 1
        assert [act["action"] for act in acts].count("tenant.purged") == 1
        died.append(tenant.slug)

    steps = await crash_everywhere(api.addresses, tmp_path, ask, check)
    assert steps == (
        "taken",
        "tables locked",
        "inventory kept",
        "keys removed",
        "files removed",
        "schema dropped",
        "control plane scrubbed",
        "certified",
        "recorded",
    )
    assert len(died) == len(steps) + 1
    assert (await neighbour.owner.get("/api/teams")).json()["total"] == neighbour.teams
