"""The pool, and the one way to a transaction on it.

Everything that reads or writes begins here: an ORM session, a hot read on the driver and the registry's poll alike.
A connection that is checked out of the engine in any other way has no scope, and its BEGIN raises.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, cast
from uuid import UUID, uuid4

import asyncpg
import structlog
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DisconnectionError, EmulatedDBAPIException, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.util import greenlet_spawn

from tenantry.kernel import tracing
from tenantry.kernel.work import WORK
from tenantry.tenancy.bulkheads import Bulkhead, ProcessBusyException, TenantBusyException, share_of
from tenantry.tenancy.connection import DriverConnection, Lease, ScopedConnection
from tenantry.tenancy.metrics import CLOSED, OPENED, sample_pool, transaction_ended, waited
from tenantry.tenancy.pool import Retirement, TenantPool
from tenantry.tenancy.scope import CONTROL_ROLE, EMPTY_SCOPE, HEALTH_ACCOUNT, Scope, label_clause

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

    Follower = Callable[[UUID, frozenset[str]], None]

__all__ = ("LOST", "Database", "Shares", "Transaction", "driver_of", "owner_engine", "transaction_of")

_TRANSACTION = "transaction"

LOST = (
    OSError,
    TimeoutError,
    SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # Of a connection that the server has bidden farewell, at the next statement, while its end is still on the way.
    asyncpg.InternalClientError,
    # There is one, but no connection to spare.
    TenantBusyException,
    ProcessBusyException,
)
"""What a database that is away looks like to whoever works without a request and comes back later."""

# The address goes to asyncpg as it is: SQLAlchemy would take it apart, and know neither `sslmode` nor several hosts.
_DRIVER = "postgresql+asyncpg://"

_log = structlog.get_logger(__name__)


def driver_of(dbapi_connection: Any) -> ScopedConnection:
    """The asyncpg connection behind SQLAlchemy's adapter."""
    driver = dbapi_connection.driver_connection
    if not isinstance(driver, ScopedConnection):
        raise TypeError("the engine must be made by Database, whose connections are scoped")
    return driver


def transaction_of(session: AsyncSession) -> Transaction | None:
    """The transaction that a session is of; None for a session that was made in another way."""
    found = session.info.get(_TRANSACTION)
    return found if isinstance(found, Transaction) else None


class Transaction:
    """One scoped transaction on one pooled connection.

    `connection` is the driver's, for hot reads; `session` is an ORM session on the same transaction, made when it is
    first asked for. Neither outlives `close`.
    """

    __slots__ = (
        "_account",
        "_adapter",
        "_begun",
        "_closed",
        "_database",
        "_driver",
        "_ended",
        "_events",
        "_lease",
        "_proxied",
        "_scope",
        "_session",
    )

    def __init__(
        self, database: Database, proxied: PoolProxiedConnection, connection: ScopedConnection, scope: Scope
    ) -> None:
        self._begun = perf_counter()
        self._database = database
        self._scope = scope
        self._account = scope.account
        self._events: set[str] = set()
        self._proxied = proxied
        self._adapter: Any = proxied.dbapi_connection
        self._session: AsyncSession | None = None
        self._ended = False
        self._closed = False
        self._driver = connection
        self._lease = Lease(connection)

    @property
    def connection(self) -> ScopedConnection:
        """The driver's connection; a `Lease` of it, so that nobody reads on it once it is another's."""
        return cast("ScopedConnection", self._lease)

    @property
    def driver(self) -> ScopedConnection:
        """The connection itself, to ask how it is; nobody reads on it."""
        return self._driver

    @property
    def session(self) -> AsyncSession:
        if self._session is None:
            engine = self._database.engine
            sync_connection = Connection(engine.sync_engine, connection=self._proxied)
            self._session = AsyncSession(
                AsyncConnection(engine, sync_connection),
                expire_on_commit=False,
                autoflush=False,
                close_resets_only=False,
                info={_TRANSACTION: self},
            )
        return self._session

    def note_event(self, name: str) -> None:
        """Something has happened, once this is committed."""
        self._events.add(name)

    async def descend(self, scope: Scope) -> None:
        """Flush what the session holds for the control plane, and go on as one tenant; see `ScopedConnection`.

        Raises:
            ScopeError: the transaction is not the control plane's, or the scope is no tenant's.
        """
        await self.flush()
        await self._driver.descend(scope)
        self._scope = scope

    async def flush(self) -> None:
        """Write what the session holds, if there is one."""
        if self._session is not None:
            await self._session.flush()

    def forget(self) -> None:
        """Detach what the session has loaded: what is read next is read from the database."""
        if self._session is not None:
            self._session.sync_session.expunge_all()

    async def commit(self) -> None:
        """Flush what the session holds and commit.

        Raises whatever the database says, deferred constraints included: then nothing is stored.
        """
        if self._ended:
            raise RuntimeError("the transaction has ended")
        await self.flush()
        self._ended = True
        try:
            await self._end("commit")
        finally:
            # Also where nobody knows whether it was stored.
            if self._events and self._scope.is_tenant:
                self._database.tell(UUID(hex=self._scope.role.removeprefix("t_")), frozenset(self._events))

    async def _end(self, verb: Literal["commit", "rollback"]) -> None:
        # What the adapter's commit and rollback do, without the greenlet that they would need around them; the
        # ORM, if it is there, has flushed, and whoever began the transaction ends it.
        adapter = self._adapter
        transaction, adapter._transaction = adapter._transaction, None
        if transaction is not None:
            await getattr(transaction, verb)()

    async def close(self, *, failed: bool = False) -> None:
        """Roll back unless committed, and give the connection back to the pool.

        With `failed` (the work was cancelled or timed out, so that a statement may still be under way) or if the
        roll-back itself fails, the connection is closed instead: a new one costs milliseconds, a doubtful one a leak.
        A roll-back that fails is no error to the caller, who was not going to store anything, or has one already.
        """
        if self._closed:
            return
        self._closed = True
        self._lease.end()
        try:
            await self._close(failed=failed)
        finally:
            self._database.give_back(self._account)

    async def _close(self, *, failed: bool) -> None:
        driver, proxied = self._driver, self._proxied
        try:
            # Only detaches the session's objects: the connection and the transaction are ours, not the session's.
            self.forget()
            if self._session is not None:
                # Nothing that refers to itself is left for the garbage collector, in every request.
                self._session.info.clear()
            if not self._ended and not failed and not driver.is_closed():
                self._ended = True
                await self._end("rollback")
        except Exception as error:
            failed = True
            _log.warning("the roll-back failed; the connection is closed", error=repr(error))
        except BaseException:
            failed = True
            raise
        finally:
            if failed or driver.is_closed() or not driver.is_clean:
                driver.terminate()
                if proxied.is_valid:
                    # Otherwise the ORM, which saw the connection break, has done so.
                    proxied.invalidate()
            transaction_ended(self._scope, perf_counter() - self._begun)
            if driver.span is not None:
                driver.span.end(failed=failed)
                driver.span = None
            # Shielded by being quick: with the transaction over, this returns the connection without a round trip.
            if not self._database.retirement.takes(driver, proxied):
                await greenlet_spawn(proxied.close)


@dataclass(frozen=True, slots=True)
class Shares:
    """How a process' connections are shared."""

    percent: int
    """Of the connections that are not reserved, what one tenant may have, unless its plan says how many."""
    reserved: int
    """For the control plane and the health check; never more than half of all."""
    queue: int
    """How many may wait for one tenant's."""


class Database:
    """The application's engine, whose connections begin nothing without a scope."""

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        max_overflow: int = 0,
        pool_timeout: float = 5.0,
        connect_timeout: float = 5.0,
        prepared_statements: bool = True,
        application_name: str = "tenantry",
        connection_class: type[ScopedConnection] = ScopedConnection,
        shares: Shares | None = None,
        connection_age: float = 1800.0,
        connection_tenants: int = 500,
        slow_after: float = math.inf,
        labels: bool = True,
    ) -> None:
        """`url` is a `postgresql://` address; times are in seconds. For the last two see `Retirement`.

        With `shares`, no tenant has more of the connections than its own, and those who wait do so by turns of their
        tenants, before the pool is asked: its own queue is first come, first served, and one tenant could fill it.

        `prepared_statements=False` suits a PgBouncer below 1.21 in transaction mode: no statement is cached, and
        every name is unique. Statements that take longer than `slow_after` are logged; with `labels`, the server is
        told whose each transaction is.
        """
        self.name = application_name
        self.waiting = 0
        """How many wait for a connection."""
        self._slow_after = slow_after
        self._labels = labels
        self._closing = False
        arguments: dict[str, Any] = {
            "dsn": url,
            "connection_class": connection_class,
            "timeout": connect_timeout,
            "server_settings": {"application_name": application_name},
        }
        if not prepared_statements:
            arguments |= {
                "statement_cache_size": 0,
                "prepared_statement_cache_size": 0,
                "prepared_statement_name_func": _unique_name,
            }
            # A pooler refuses start-up parameters that it does not know.
            del arguments["server_settings"]
        self.engine: AsyncEngine = create_async_engine(
            _DRIVER,
            connect_args=arguments,
            poolclass=TenantPool,
            pool_size=pool_size,
            max_overflow=max_overflow,
            pool_timeout=pool_timeout,
            hide_parameters=True,
        )
        self.pool = cast("TenantPool", self.engine.pool)
        self.retirement = Retirement(self.pool, age=connection_age, tenants=connection_tenants)
        self._watch(self.engine)
        self.followers: list[Follower] = []
        """Are called after a commit with the tenant and the names of the events that it brought about. They wait for
        nothing and raise nothing."""

        self._bulkhead: Bulkhead | None = None
        slots = pool_size + max_overflow
        self._share = self._control_share = slots
        if shares is not None:
            reserved = min(shares.reserved, slots // 2)
            self._share = share_of(shares.percent, slots - reserved)
            self._control_share = max(1, slots // 2)
            self._bulkhead = Bulkhead(
                "connections",
                slots,
                queue=shares.queue,
                patience=pool_timeout,
                reserved=reserved,
                privileged=(CONTROL_ROLE, HEALTH_ACCOUNT),
            )

    def tell(self, tenant_id: UUID, events: frozenset[str]) -> None:
        """Tell the followers what is committed."""
        for follow in self.followers:
            follow(tenant_id, events)

    def share(self, scope: Scope) -> int:
        """How many connections the scope's account may have at a time."""
        return scope.connections or (self._control_share if scope.account == CONTROL_ROLE else self._share)

    def give_back(self, account: str) -> None:
        """Of a transaction that is over: let in whoever waits for its connection."""
        if self._bulkhead is not None:
            self._bulkhead.give(account)

    def _watch(self, engine: AsyncEngine) -> None:
        sync_engine = engine.sync_engine
        name, slow_after = self.name, self._slow_after

        @event.listens_for(sync_engine, "connect", insert=True)
        def arm_for_the_dialect(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
            # The dialect looks at the server's version on the engine's first connection, in a transaction.
            driver_of(connection).arm(EMPTY_SCOPE)

        @event.listens_for(sync_engine, "connect")
        def disarm_after_connect(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
            driver = driver_of(connection)
            driver.disarm()
            driver.slow_after = slow_after
            self.retirement.opened(driver)
            OPENED.labels(name).inc()

        @event.listens_for(sync_engine, "invalidate")
        def note_invalid(_: DBAPIConnection, entry: ConnectionPoolEntry, __: BaseException | None) -> None:
            entry.info.setdefault("closing", "invalid")

        @event.listens_for(sync_engine, "close")
        def count_closed(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
            found = entry.info.pop("closing", None)
            reason = driver_of(connection).ends_for or found or ("end" if self._closing else "surplus")
            CLOSED.labels(name, reason).inc()

        @event.listens_for(sync_engine, "checkout")
        def refuse_unclean(connection: DBAPIConnection, _: ConnectionPoolEntry, __: PoolProxiedConnection) -> None:
            driver = driver_of(connection)
            driver.is_idle = False
            if not driver.is_clean:
                driver.terminate()
                raise DisconnectionError("the pooled connection was closed or not clean")

        @event.listens_for(sync_engine, "checkin")
        def disarm_on_return(connection: DBAPIConnection | None, _: ConnectionPoolEntry) -> None:
            if connection is not None:
                driver = driver_of(connection)
                driver.disarm()
                driver.is_idle = True

        @event.listens_for(sync_engine, "handle_error")
        def keep_the_pool(context: ExceptionContext) -> None:
            # A connection that was terminated here says nothing about the others; those that the server did close
            # are noticed one by one at checkout. Otherwise one purged tenant's role would empty the pool for all.
            context.invalidate_pool_on_disconnect = False

    async def begin(self, scope: Scope) -> Transaction:
        """Check a connection out and open a transaction in `scope`.

        The caller must `close` it; prefer `transaction` or `reading`.

        Raises:
            TenantBusyException: the tenant has its share of connections, and none of them became free in time.
            ProcessBusyException, sqlalchemy.exc.TimeoutError: no connection became free in time.
            OSError, asyncpg.PostgresError: the server is not there, or refused.
        """
        proxied = await self._check_out(scope)
        adapter: Any = proxied.dbapi_connection
        driver: ScopedConnection = adapter._connection
        self.retirement.meets(driver, scope.role)
        try:
            driver.arm(scope, label_clause(self.name, scope.tenant, WORK.get()) if self._labels else "")
            if tracing.ACTIVE is not None:
                driver.span = tracing.ACTIVE.transaction(scope.tenant, scope.plane, read_only=scope.read_only)
            # SQLAlchemy's adapter would begin at the first statement; asked to do so now, the driver's own queries
            # and the ORM's share the transaction. Private, hence guarded by a test and a pinned SQLAlchemy.
            with _driver_errors():
                await adapter._start_transaction()
        except BaseException:
            driver.terminate()
            if driver.span is not None:
                driver.span.end(failed=True)
            proxied.invalidate()
            proxied.close()
            self.give_back(scope.account)
            raise
        return Transaction(self, proxied, driver, scope)

    async def _check_out(self, scope: Scope) -> PoolProxiedConnection:
        """A connection, once it is the account's turn."""
        asked = perf_counter()
        self.waiting += 1
        try:
            bulkhead, account = self._bulkhead, scope.account
            if bulkhead is not None and not bulkhead.take(account, share := self.share(scope)):
                await bulkhead.wait(account, share, plan=scope.plan)
            try:
                self.pool.want(scope.role)
                with _driver_errors():
                    return await self.engine.raw_connection()
            except BaseException:
                self.give_back(account)
                raise
        finally:
            self.waiting -= 1
            waited(self.name, perf_counter() - asked)

    @asynccontextmanager
    async def transaction(self, scope: Scope) -> AsyncIterator[Transaction]:
        """A transaction that commits when the block ends well, and rolls back when it raises."""
        transaction = await self.begin(scope)
        failed = True
        try:
            yield transaction
            if not scope.read_only:
                await transaction.commit()
            failed = False
        except Exception as error:
            failed = isinstance(error, TimeoutError | asyncio.CancelledError)
            raise
        finally:
            await transaction.close(failed=failed)

    def sample(self) -> None:
        """Set the gauges of the pool."""
        sample_pool(self.name, self.engine.pool, self.waiting)

    async def close(self) -> None:
        self._closing = True
        await self.retirement.close()
        await self.engine.dispose()


_OWNER_USES = 200
"""Of one of the owner's connections. PostgreSQL keeps a plan for each foreign key of each tenant that it has seen rows
go through, and looks through all of them whenever a table is made (measured: after 700 tenants made on one connection,
four fifths of the time)."""


def owner_engine(url: str, *, pool_size: int = 2) -> AsyncEngine:
    """The engine of the provisioner and of migrations, which log in as `tenantry_owner`; no serving process has it."""
    engine = create_async_engine(
        _DRIVER,
        connect_args={
            "dsn": url,
            "connection_class": DriverConnection,
            "server_settings": {
                "application_name": "tenantry-owner",
                # Granting a role locks it until the commit, for the whole cluster: a process that hangs in between
                # (tried: ten minutes) would keep every other provisioner from making anybody's.
                "idle_in_transaction_session_timeout": "60000",
            },
        },
        pool_size=pool_size,
        hide_parameters=True,
    )

    @event.listens_for(engine.sync_engine, "checkin")
    def count_uses(connection: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
        uses = entry.info["uses"] = entry.info.get("uses", 0) + 1
        if uses >= _OWNER_USES and connection is not None:
            entry.invalidate(soft=True)

    return engine


@contextmanager
def _driver_errors() -> Iterator[None]:
    """asyncpg's errors as they are.

    Called without its engine, SQLAlchemy's adapter raises a wrapper of its own that is no SQLAlchemyError: a violated
    deferred constraint, or a connection lost at COMMIT, would be an unknown error to whoever answers the client.
    """
    try:
        yield
    except EmulatedDBAPIException as error:
        raise error.orig or error from None


def _unique_name() -> str:
    return f"__tenantry_{uuid4().hex}__"
