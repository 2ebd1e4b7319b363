"""Going on as one tenant, inside a transaction of the control plane."""

from __future__ import annotations

import asyncpg
import pytest

from tenantry.tenancy.context import control_scope
from tenantry.tenancy.database import Transaction
from tenantry.tenancy.scope import CONTROL_ROLE, SHARED_SCHEMA, Scope, ScopeError
from tenantry.tenancy.wiring import scope_times
from tests.world import TenantHandle, World


def _control(world: World, *, read_only: bool = False) -> Scope:
    return control_scope(scope_times(world.settings), read_only=read_only)


async def _role(transaction: Transaction) -> str:
    return await transaction.connection.fetchval("SELECT current_user")  # type: ignore[no-any-return]


async def test_what_both_planes_write_commits_together(world: World, acme: TenantHandle, globex: TenantHandle) -> None:
    async with world.database.transaction(_control(world)) as transaction:
        await transaction.connection.execute(
            "UPDATE tenant SET status_reason = $1 WHERE id = $2", "descended", acme.tenant_id
        )
        await transaction.descend(acme.context.write_scope)
        assert await _role(transaction) == acme.context.schema
        await transaction.connection.execute("UPDATE user_account SET name = $1", "Descended")
    async with world.database.transaction(acme.context.read_scope) as transaction:
        assert await transaction.connection.fetchval("SELECT name FROM user_account") == "Descended"
    async with world.database.transaction(globex.context.read_scope) as transaction:
        assert await transaction.connection.fetchval("SELECT name FROM user_account") is None
    async with world.database.transaction(_control(world, read_only=True)) as transaction:
        reason = "SELECT status_reason FROM tenant WHERE id = $1"
        found = await transaction.connection.fetchval(reason, acme.tenant_id)
        assert found == "descended"


async def test_an_error_undoes_both(world: World, acme: TenantHandle) -> None:
    with pytest.raises(asyncpg.NotNullViolationError):  # noqa: PT012 - the block's end is part of it
        async with world.database.transaction(_control(world)) as transaction:
            await transaction.connection.execute(
                "UPDATE tenant SET status_reason = $1 WHERE id = $2", "half", acme.tenant_id
            )
            await transaction.descend(acme.context.write_scope)
            await transaction.connection.execute("UPDATE user_account SET email = $1", None)
    async with world.database.transaction(_control(world, read_only=True)) as transaction:
        reason = "SELECT status_reason FROM tenant WHERE id = $1"
        found = await transaction.connection.fetchval(reason, acme.tenant_id)
        assert found is None


async def test_below_neither_the_control_plane_nor_a_neighbour_is_in_reach(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    for statement in (f'SELECT * FROM "{globex.context.schema}".user_account', "SELECT * FROM platform.tenant"):
        transaction = await world.database.begin(_control(world))
        await transaction.descend(acme.context.write_scope)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await transaction.connection.fetch(statement)
        await transaction.close()


async def test_there_is_no_way_back_and_none_to_a_neighbour(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    for scope in (_control(world), globex.context.write_scope, acme.context.write_scope):
        transaction = await world.database.begin(_control(world))
        await transaction.descend(acme.context.write_scope)
        with pytest.raises(ScopeError):
            await transaction.descend(scope)
        assert transaction.connection.is_closed()
        await transaction.close(failed=True)


async def test_only_a_writing_transaction_of_the_control_plane_descends_and_only_to_a_tenant(
    world: World, acme: TenantHandle, globex: TenantHandle
) -> None:
    control = Scope(role=CONTROL_ROLE, search_path=SHARED_SCHEMA)
    mixed = Scope(role=acme.context.schema, search_path=globex.context.schema)
    for begun, wanted in (
        (_control(world, read_only=True), acme.context.write_scope),
        (globex.context.write_scope, acme.context.write_scope),
        (_control(world), control),
        (_control(world), mixed),
    ):
        transaction = await world.database.begin(begun)
        with pytest.raises(ScopeError):
            await transaction.descend(wanted)
        assert transaction.connection.is_closed()
        await transaction.close(failed=True)


async def test_the_next_transaction_on_the_connection_begins_from_nothing(world: World, acme: TenantHandle) -> None:
    for _ in range(20):
        async with world.database.transaction(_control(world)) as transaction:
            await transaction.descend(acme.context.write_scope)
        async with world.database.transaction(_control(world, read_only=True)) as transaction:
            assert await _role(transaction) == CONTROL_ROLE
        with pytest.raises(ScopeError):
            async with world.database.transaction(acme.context.write_scope) as transaction:
                await transaction.descend(acme.context.write_scope)


async def test_a_tenant_whose_role_is_gone_closes_the_connection(world: World) -> None:
    name = "t_" + "0" * 32
    transaction = await world.database.begin(_control(world))
    with pytest.raises(asyncpg.PostgresError):
        await transaction.descend(Scope(role=name, search_path=name))
    assert transaction.connection.is_closed()
    await transaction.close(failed=True)
