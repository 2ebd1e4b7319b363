"""The kernel's objects as the settings want them, for every composition root alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantry.kernel.breaker import Breaker
from tenantry.kernel.security import PasswordHasher, Vault
from tenantry.kernel.settings import SettingsError
from tenantry.tenancy.context import ScopeTimes, control_scope
from tenantry.tenancy.database import Database, Shares
from tenantry.tenancy.redis import platform_key
from tenantry.tenancy.replica import Positions, Replica

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from tenantry.kernel.settings import Settings

__all__ = (
    "create_database",
    "create_hasher",
    "create_redis_breaker",
    "create_replica",
    "open_vault",
    "required",
    "scope_times",
)


def required(address: str | None) -> str:
    """An address of settings that were completed.

    Raises:
        SettingsError: they were not.
    """
    if address is None:
        raise SettingsError(["the settings have no address of PostgreSQL or of Redis"])
    return address


def scope_times(settings: Settings) -> ScopeTimes:
    """The deployment's time limits; settings are in seconds, PostgreSQL's in milliseconds."""
    return ScopeTimes(
        statement=int(settings.statement_timeout * 1000),
        lock=int(settings.lock_timeout * 1000),
        idle_in_transaction=int(settings.idle_in_transaction_timeout * 1000),
    )


def create_database(
    settings: Settings, *, application_name: str, pool_size: int | None = None, shared: bool = False
) -> Database:
    """The application's pool; its size is the settings' unless given.

    `shared` between tenants that come as they please: each is held to its share. A worker's is not, which has a
    connection for each job, and whose jobs the queue deals out.

    Raises:
        SettingsError: there is no address.
    """
    return Database(
        required(settings.database_url),
        pool_size=settings.database_pool_size if pool_size is None else pool_size,
        pool_timeout=settings.database_pool_timeout,
        connect_timeout=settings.database_connect_timeout,
        prepared_statements=settings.database_prepared_statements,
        application_name=application_name,
        connection_age=settings.database_connection_age,
        connection_tenants=settings.database_connection_tenants,
        shares=_shares(settings) if shared else None,
        slow_after=settings.slow_statement,
        labels=settings.database_labels,
    )


def _shares(settings: Settings) -> Shares | None:
    if not settings.bulkheads:
        return None
    return Shares(settings.tenant_connection_share, settings.database_reserved, settings.tenant_waiting)


def create_replica(settings: Settings, primary: Database, *, application_name: str) -> Replica | None:
    """The replica that the settings name; None if they name none. `start` and `stop` it.

    Raises:
        SettingsError: there is no address of the primary.
    """
    if settings.database_replica_url is None:
        return None
    database = Database(
        settings.database_replica_url,
        pool_size=settings.database_pool_size,
        # A read that would wait for a connection may as well be the primary's.
        pool_timeout=settings.database_replica_wait,
        connect_timeout=settings.database_connect_timeout,
        prepared_statements=settings.database_prepared_statements,
        application_name=application_name,
        connection_age=settings.database_connection_age,
        connection_tenants=settings.database_connection_tenants,
        shares=_shares(settings),
        slow_after=settings.slow_statement,
        labels=settings.database_labels,
    )
    positions = Positions(
        settings.database_listen_url or required(settings.database_url),
        connect_timeout=settings.database_connect_timeout,
    )
    return Replica(
        primary,
        database,
        positions,
        scope=control_scope(scope_times(settings), read_only=True),
        wait=settings.database_replica_wait,
    )


def create_hasher(settings: Settings) -> PasswordHasher:
    """The hasher of passwords; `close` it."""
    return PasswordHasher(
        time_cost=settings.password_hash_time_cost,
        memory_cost=settings.password_hash_memory_cost,
        parallelism=settings.password_hash_parallelism,
        concurrency=settings.password_hash_concurrency,
        fair=settings.bulkheads,
    )


def create_redis_breaker(redis: Redis) -> Breaker:
    """Whether Redis is asked; `stop` it before the client is closed."""
    # A write: a replica, or a server that is full, would answer a PING.
    return Breaker("redis", lambda: redis.set(platform_key("breaker", "probe"), "1", ex=60))


def open_vault(settings: Settings, *, create: bool) -> Vault:
    """The vault. A file that the settings name must be there; else it is read, or with `create` made, when needed.

    What is named is never made: it is a volume or a Secret, and where that is not mounted, a new key would seal what
    nobody else can open, and be gone with the container.

    Raises:
        VaultError: the named file is missing, damaged or open to others.
    """
    named = settings.vault_file is not None
    vault = Vault(settings.vault_path, create=create and not named)
    if named:
        vault.open()
    return vault
