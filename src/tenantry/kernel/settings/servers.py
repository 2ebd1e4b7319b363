"""Settings of the servers behind the service, PostgreSQL and Redis, and of what one tenant's transaction may take."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr, ValidationInfo, field_validator

from tenantry.kernel.settings.addresses import POSTGRES_FORM, REDIS_FORM, check_postgres_url, check_redis_url
from tenantry.kernel.settings.fields import seconds, text, whole

__all__ = ("PostgreSQL", "Redis", "Transactions")


class PostgreSQL(BaseModel):
    """Addresses of the database, and how it is connected to."""

    database_url: str | None = text(
        None,
        expects=POSTGRES_FORM,
        description="PostgreSQL for the serving processes, as the application's role; unset: the embedded server.",
    )
    database_owner_url: SecretStr | None = text(
        None,
        expects=POSTGRES_FORM,
        description="PostgreSQL as the owner of the schemas; for migrations and the provisioner alone.",
    )
    database_listen_url: str | None = text(
        None,
        expects=POSTGRES_FORM,
        description="Direct address for LISTEN, where database_url is a transaction pooler; unset: database_url.",
    )
    database_replica_url: str | None = text(
        None,
        expects=POSTGRES_FORM,
        description="A streaming replica of database_url's server, as the same role, for requests that only read; "
        "unset: none.",
    )
    database_replica_wait: float = seconds(
        0.05,
        most=5,
        description="How long a read waits for the replica to have all that was committed before it; then it is the "
        "primary's, and so are all others for a second.",
    )
    database_connections: int = whole(
        16,
        least=2,
        most=10_000,
        description="Connections to PostgreSQL that one `tenantry serve` may open, all its processes together; of each "
        "process' share the registry takes one, reads of a replica one more, and requests the others.",
        unit="connections",
    )
    database_connection_age: float = seconds(
        1800.0,
        most=86_400,
        description="How long a connection is kept, give or take a fifth; then it is replaced between two requests.",
    )
    database_connection_tenants: int = whole(
        500,
        least=1,
        most=100_000,
        description="Organizations that one connection serves before it is replaced: PostgreSQL keeps some 0.2 MB of "
        "each that it has met for as long as the connection lives.",
        unit="organizations",
    )
    database_pool_timeout: float = seconds(
        5.0, most=300, description="How long a request waits for a connection before it is answered 503."
    )
    database_parallel_reads: int = whole(
        3,
        least=1,
        most=16,
        description="Connections that one request reads on at once where its answer has many parts, as the dashboard; "
        "all such requests of a process together take at most half of its pool.",
        unit="connections",
    )
    database_connect_timeout: float = seconds(
        5.0, most=300, description="How long opening a connection to PostgreSQL may take."
    )
    database_prepared_statements: bool = text(
        True,
        expects="true or false",
        description="Keep prepared statements; false behind PgBouncer older than 1.21 in transaction mode.",
    )

    @field_validator("database_url", "database_listen_url", "database_replica_url")
    @classmethod
    def _check_database_url(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is None:
            return None
        url = check_postgres_url(url)
        if info.field_name != "database_url" and info.data.get("database_url", url) is None:
            raise ValueError("TENANTRY_DATABASE_URL to be set as well")
        return url

    @field_validator("database_connections")
    @classmethod
    def _check_connections(cls, most: int, info: ValidationInfo) -> int:
        # Of the process' settings, which come before these.
        workers = info.data.get("workers", 1)
        each = 2 if info.data.get("database_replica_url") is None else 3
        if most < each * workers:
            raise ValueError(f"at least {each * workers}: {each} for each of {workers} serving processes")
        return most

    @field_validator("database_owner_url")
    @classmethod
    def _check_owner_url(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if secret is None:
            return None
        url = check_postgres_url(secret.get_secret_value())
        application = info.data.get("database_url", url)
        if application is None:
            # Alone it would start the embedded server for the application and migrate the real one.
            raise ValueError("TENANTRY_DATABASE_URL to be set as well")
        if "database_url" in info.data and urlsplit(application).username == urlsplit(url).username:
            raise ValueError("another user than TENANTRY_DATABASE_URL's: the application must not own the schemas")
        return SecretStr(url)


class Redis(BaseModel):
    """Redis or Valkey."""

    redis_url: str | None = text(None, expects=REDIS_FORM, description="Redis or Valkey; unset: the embedded Valkey.")
    redis_timeout: float = seconds(
        0.25, most=30, description="How long a call to Redis may take before the request goes on without it."
    )

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, url: str | None) -> str | None:
        return None if url is None else check_redis_url(url)


class Transactions(BaseModel):
    """What one tenant's transaction may take."""

    statement_timeout: float = seconds(5.0, most=600, description="Longest that one SQL statement may run.")
    lock_timeout: float = seconds(
        2.0, most=600, description="Longest that a statement waits for a lock; less than statement_timeout."
    )
    idle_in_transaction_timeout: float = seconds(
        10.0, most=3600, description="Longest that an open transaction may do nothing."
    )

    @field_validator("lock_timeout")
    @classmethod
    def _check_lock_timeout(cls, wait: float, info: ValidationInfo) -> float:
        statement = info.data.get("statement_timeout")
        if statement is not None and wait >= statement:
            # PostgreSQL counts the wait as part of the statement: the lock's own time-out would never fire.
            raise ValueError(f"less than TENANTRY_STATEMENT_TIMEOUT ({statement:g})")
        return wait
