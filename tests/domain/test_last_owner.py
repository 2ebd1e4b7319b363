"""An organization always has an active owner, whoever asks for what at the same moment."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import text

from tenantry.domain.identity.users.providers import provide_users
from tenantry.domain.identity.users.service import LAST_OWNER, UserService
from tenantry.kernel.errors import ConflictException
from tests.world import Caller, TenantHandle, World

STEPS_DOWN: list[dict[str, Any]] = [{"roles": ["member"]}, {"isActive": False}, {"roles": []}]

CHANGES: list[dict[str, Any]] = [{"isActive": False}, {"roles": []}, {"roles": ["recruiter"]}, {"name": "Mallory"}]


async def _owners(tenant: TenantHandle) -> int:
    """Of the database, since whoever is left out may not ask any more."""
    async with tenant.world.database.transaction(tenant.context.read_scope) as transaction:
        count = await transaction.session.scalar(
            text(
                "SELECT count(*) FROM user_role h JOIN role r ON r.id = h.role_id JOIN user_account u"
                " ON u.id = h.user_id WHERE r.slug = 'owner' AND r.is_builtin AND u.is_active"
            )
        )
    assert isinstance(count, int)
    return count


async def _step_down(by: Caller, who: UUID | None, change: dict[str, Any]) -> int:
    answer = await by.patch(f"/api/users/{who}", json=change)
    if answer.status_code == 409:
        assert answer.json()["type"] == "/problems/last-owner"
    return answer.status_code


@pytest.mark.parametrize("change", STEPS_DOWN)
async def test_of_two_owners_who_put_each_other_out_at_once_one_stays(
    acme: TenantHandle, globex: TenantHandle, change: dict[str, Any]
) -> None:
    second = await acme.add_user("second", "owner")
    codes = await asyncio.gather(_step_down(acme, second.id, change), _step_down(second, acme.id, change))
    # The loser may have been put out before it was asked whether it may.
    assert 200 in codes
    assert set(codes) <= {200, 409, 403, 401}
    assert await _owners(acme) == 1
    assert await _owners(globex) == 1


async def test_of_many_owners_who_leave_at_once_one_stays(acme: TenantHandle) -> None:
    others = [await acme.add_user(f"owner-{number}", "owner") for number in range(4)]
    codes = await asyncio.gather(
        *(
            _step_down(owner, owner.id, STEPS_DOWN[number % len(STEPS_DOWN)])
            for number, owner in enumerate((acme, *others))
        )
    )
    assert sorted(codes) == [200, 200, 200, 200, 409]
    assert await _owners(acme) == 1


@pytest.mark.parametrize(
    ("first", "second"), [({"roles": []}, {"is_active": False}), ({"is_active": False}, {"roles": ["admin"]})]
)
async def test_the_second_to_step_down_waits_for_the_first_and_is_refused(
    world: World, acme: TenantHandle, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """Not by luck: the second is seen waiting while the first has not committed."""
    other = await acme.add_user("other", "owner")
    assert acme.id is not None
    assert other.id is not None
    async with world.database.transaction(acme.context.write_scope) as transaction:
        users: UserService = await provide_users(db_session=transaction.session)
        await users.change(acme.id, dict(first))
        waiting = asyncio.create_task(_change_alone(world, acme, other.id, dict(second)))
        await _is_blocked_by(world, await transaction.connection.fetchval("SELECT pg_backend_pid() WHERE $1", True))
        assert not waiting.done()
    with pytest.raises(ConflictException) as refused:
        await waiting
    assert refused.value.problem is LAST_OWNER
    assert await _owners(acme) == 1


async def _change_alone(world: World, tenant: TenantHandle, user_id: UUID, change: dict[str, Any]) -> None:
    async with world.database.transaction(tenant.context.write_scope) as transaction:
        users: UserService = await provide_users(db_session=transaction.session)
        await users.change(user_id, change)


async def _is_blocked_by(world: World, pid: int) -> None:
    admin = await asyncpg.connect(world.addresses.admin_url)
    try:
        async with asyncio.timeout(10):
            while not await admin.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid))", pid
            ):
                await asyncio.sleep(0)
    finally:
        await admin.close()


async def test_a_role_of_ones_own_making_is_no_owners(acme: TenantHandle) -> None:
    """Also one that permits everything: what is protected is the built-in role."""
    catalogue = [permission["name"] for permission in (await acme.get("/api/permissions")).json()]
    everything = {"name": "Everything", "slug": "everything", "permissions": catalogue}
    assert (await acme.post("/api/roles", json=everything)).status_code == 201
    almost = await acme.add_user("almost", "everything")
    assert (await almost.patch(f"/api/users/{acme.id}", json={"isActive": False})).status_code == 403
    assert (await almost.patch(f"/api/users/{almost.id}", json={"roles": ["owner"]})).status_code == 403
    assert await _step_down(acme, acme.id, {"roles": ["everything"]}) == 409


async def test_whoever_may_do_little_touches_nobody_who_may_do_more(acme: TenantHandle) -> None:
    role = {"name": "Recruiter", "slug": "recruiter", "permissions": ["users:read", "users:write"]}
    assert (await acme.post("/api/roles", json=role)).status_code == 201
    recruiter, colleague = await acme.add_user("recruiter", "recruiter"), await acme.add_user("colleague", "recruiter")
    admin, member = await acme.add_user("admin", "admin"), await acme.add_user("member", "member")
    for above in (acme, admin, member):
        for change in CHANGES:
            assert (await recruiter.patch(f"/api/users/{above.id}", json=change)).status_code == 403
    refused = await recruiter.patch(f"/api/users/{member.id}", json={"isActive": False})
    assert refused.json()["type"] == "/problems/beyond-own-permissions"
    assert "tags:write" in refused.json()["permissions"]
    assert (await recruiter.patch(f"/api/users/{colleague.id}", json={"isActive": False})).status_code == 200


async def test_only_an_owner_touches_a_superuser(world: World, acme: TenantHandle) -> None:
    admin, root = await acme.add_user("admin", "admin"), await acme.add_user("root", "viewer")
    async with world.database.transaction(acme.context.write_scope) as transaction:
        await transaction.connection.fetch("UPDATE user_account SET is_superuser = true WHERE id = $1", root.id)
    assert (await admin.patch(f"/api/users/{root.id}", json={"isActive": False})).status_code == 403
    assert (await acme.patch(f"/api/users/{root.id}", json={"name": "Root"})).status_code == 200
