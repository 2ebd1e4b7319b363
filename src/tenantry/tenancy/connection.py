"""The asyncpg connection that cannot begin a transaction without a scope.

This is where a leak would come from, so every rule here answers a way in which one was produced in a trial:

- A BEGIN whose answer was late (a deadline fired, the task was cancelled) left the server inside tenant A's
  transaction, while asyncpg remembered a transaction at its top level: the next tenant's BEGIN became a SAVEPOINT in
  A's transaction, and A's rows were read. Hence any exception while beginning terminates the connection, and
  asyncpg's own savepoint at the top level terminates it too.
- A role that is gone fails inside the message that began the transaction, and leaves it open and aborted. Terminated
  as well.
- A role that was granted a moment ago may be denied: PostgreSQL keeps the list of memberships that it was putting
  together when word of the grant came, until the next grant (seen on 18 with 2,000 tenants: on half of the connections
  that were busy meanwhile). The denial is an answer, so the state is known: it is asked once more, with a list that is
  put together anew.
- COMMIT of an aborted transaction is answered `ROLLBACK`, without an error: somebody had swallowed a failed
  statement, and the caller would be told that its data are stored. That is an error here.
- A connection that comes back to the pool with a scope that was never used must not give it to the next user.
- One statement a message everywhere but here: the simple protocol, which takes several, is closed to everything but
  the transaction's own verbs, so an injected `; RESET ROLE; …` has no way in. COPY knows no other protocol: it may
  hold no semicolon (tried: through one, a row of another tenant was written).
- Whoever keeps a connection for longer than its transaction reads in the next one, whose tenant is another (tried: a
  response that streams would). Hence the `Lease`, which ends with the transaction.
"""

from __future__ import annotations

import math
import re
from time import perf_counter
from typing import TYPE_CHECKING, Any

import asyncpg

from tenantry.tenancy.scope import CONTROL_ROLE, Scope, ScopeError
from tenantry.tenancy.statements import TimedStatement, report_slow

if TYPE_CHECKING:
    from asyncpg.connect_utils import _ClientConfiguration, _ConnectionParameters

    from tenantry.kernel.tracing import TransactionSpan

__all__ = ("CommitFailedError", "DriverConnection", "Lease", "ScopedConnection")

_BEGIN = re.compile(r"\s*(?:BEGIN(?:\s+(?:TRANSACTION|WORK))?|START\s+TRANSACTION)\b\s*([^;]*?)\s*;?\s*", re.IGNORECASE)
_END = re.compile(r"\s*(COMMIT|ROLLBACK)\s*;?\s*", re.IGNORECASE)
# asyncpg's fast path: the exact texts that its Transaction sends, compared before any regular expression runs.
_PLAIN_BEGIN = "BEGIN;"


class CommitFailedError(asyncpg.InterfaceError):
    """COMMIT was answered ROLLBACK: a statement had failed, and nothing is stored."""


class DriverConnection(asyncpg.Connection):
    """An asyncpg connection that does without `set_config`.

    asyncpg reads the types of arrays inside set_config('jit', 'off'), again after every plan that was invalidated.
    Nobody but a superuser may execute set_config here (it would let injected SQL change the role), and an
    introspection query gains nothing from the switch. Private, hence guarded by a test and a pinned asyncpg.
    """

    def __init__(
        self,
        protocol: Any,
        transport: Any,
        loop: Any,
        addr: Any,
        config: _ClientConfiguration,
        params: _ConnectionParameters,
    ) -> None:
        super().__init__(protocol, transport, loop, addr, config, params)
        self._server_caps: Any = self._server_caps._replace(jit=False)


class ScopedConnection(DriverConnection):
    """A connection whose transactions each take a `Scope`, given beforehand by `arm` and used once."""

    _armed: Scope | None = None
    _scope: Scope | None = None
    """Of the transaction that is open."""
    _label: str = ""
    _top_xact: Any
    slow_after: float = math.inf
    """Seconds beyond which a statement is logged."""
    span: TransactionSpan | None = None
    """Of the transaction that is open, where it is traced."""

    is_idle = False
    """Whether it is in the pool."""
    retires_at = float("inf")
    """When it is to be replaced, by the pool's clock."""
    most = 1 << 30
    """How many roles it may take on."""
    ends_for: str | None = None
    """Why it is to be closed, where somebody has decided that."""

    cluster: str | None = None
    """The cluster's identifier, where it has been asked for it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.met: set[str] = set()
        """The roles that it has taken on, whose catalog its backend remembers."""

    def arm(self, scope: Scope, label: str = "") -> None:
        """Give the scope that the next BEGIN takes, and with it a `label_clause`.

        Raises:
            ScopeError: a transaction is already open; the connection is terminated.
        """
        if self._top_xact is not None or self.is_in_transaction():
            self.terminate()
            raise ScopeError("a connection was reused inside an open transaction; it has been closed")
        self._armed, self._label = scope, label

    def disarm(self) -> None:
        """Forget a scope that no BEGIN has taken."""
        self._armed = None

    @property
    def is_clean(self) -> bool:
        """Whether the connection is open, outside every transaction, and holds no scope."""
        return not self.is_closed() and self._top_xact is None and self._armed is None and not self.is_in_transaction()

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109
        """Run a statement with arguments, or one of a transaction's verbs.

        Raises:
            ScopeError: BEGIN without a scope, a SAVEPOINT of asyncpg's own, or any other statement through the simple
                protocol. The first two close the connection.
            CommitFailedError: the server answered COMMIT with ROLLBACK.
        """
        if args:
            return await super().execute(query, *args, timeout=timeout)
        if query == _PLAIN_BEGIN:
            return await self._begin("", timeout)
        if match := _END.fullmatch(query):
            return await self._end(match[1].upper(), timeout)
        if match := _BEGIN.fullmatch(query):
            return await self._begin(match[1].upper(), timeout)
        if query.lstrip()[:9].upper() == "SAVEPOINT":
            self.terminate()
            raise ScopeError("a second transaction was begun inside an open one; the connection has been closed")
        raise ScopeError(
            "statements go through the extended protocol, one at a time; only a transaction's verbs do not"
        )

    async def _begin(self, mode: str, timeout: float | None) -> str:  # noqa: ASYNC109
        scope, self._armed = self._armed, None
        if scope is None:
            # asyncpg has noted the transaction as begun: left alive, its next one would be a savepoint.
            self.terminate()
            raise ScopeError("a transaction was begun without a scope; the connection has been closed")
        try:
            try:
                status = await super().execute(scope.begin(mode, label=self._label), timeout=timeout)
            except asyncpg.InsufficientPrivilegeError:
                again = scope.begin(mode, again=True, label=self._label)
                status = await super().execute(again, timeout=timeout)
        except asyncpg.InvalidParameterValueError as error:
            # The same code as for a value that a client has sent, which this is not: the role is gone.
            self.terminate()
            raise ScopeError(f"the scope of {scope.role!r} cannot be taken: {error}") from error
        except BaseException:
            self.terminate()
            raise
        self._scope = scope
        self.met.add(scope.role)
        return status

    async def descend(self, scope: Scope) -> None:
        """Go on inside the open transaction as one tenant, out of the control plane's scope; there is no way back.

        What the control plane decides about a tenant and what is written in its schema thus commit together.

        Raises:
            ScopeError: no transaction of the control plane is open, or the scope is no tenant's. The connection is
                closed then, and likewise where the scope cannot be taken.
        """
        current = self._scope
        if (
            current is None
            or current.role != CONTROL_ROLE
            or current.read_only
            or not self.is_in_transaction()
            or not scope.is_tenant
        ):
            self.terminate()
            raise ScopeError("only a writing transaction of the control plane may go on as a tenant")
        # Before the answer: whatever becomes of it, the control plane's rights are not to be asked for again.
        self._scope = None
        try:
            try:
                await super().execute(scope.enter())
            except asyncpg.InsufficientPrivilegeError:
                await super().execute(scope.enter(again=True))
        except BaseException:
            self.terminate()
            raise
        self._scope = scope
        self.met.add(scope.role)

    async def _end(self, verb: str, timeout: float | None) -> str:  # noqa: ASYNC109
        begun = perf_counter()
        try:
            status = await super().execute(verb, timeout=timeout)
        except asyncpg.PostgresError:
            # Answered: a deferred constraint, say. The server has rolled back, the connection is good.
            raise
        except BaseException:
            # Not answered: nobody knows which side of the end the server is on.
            self.terminate()
            raise
        finally:
            self.ran(verb, begun)
            self._scope = None
        if status != verb:
            raise CommitFailedError("the transaction was rolled back: one of its statements had failed")
        return status

    def ran(self, query: str, begun: float, error: BaseException | None = None) -> None:
        """A statement has been run, from `begun` (of `perf_counter`) until now."""
        seconds = perf_counter() - begun
        if seconds >= self.slow_after:
            report_slow(self._scope, query, seconds)
        if self.span is not None:
            self.span.statement(query, seconds, error)

    # The ways of all of asyncpg's statements; private, hence guarded by a test and a pinned asyncpg.
    async def _execute(self, query: str, *args: Any, **options: Any) -> Any:
        begun = perf_counter()
        try:
            result = await super()._execute(query, *args, **options)  # type: ignore[misc]
        except BaseException as error:
            self.ran(query, begun, error)
            raise
        self.ran(query, begun)
        return result

    async def _executemany(self, query: str, *args: Any, **options: Any) -> Any:
        begun = perf_counter()
        try:
            result = await super()._executemany(query, *args, **options)  # type: ignore[misc]
        except BaseException as error:
            self.ran(query, begun, error)
            raise
        self.ran(query, begun)
        return result

    async def _prepare(
        self,
        query: str,
        *,
        name: str | bool | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
        use_cache: bool = False,
        record_class: Any = None,
    ) -> TimedStatement:
        # asyncpg's own, but for the class at the end: its PreparedStatement tells nobody when it is run.
        self._check_open()  # type: ignore[attr-defined]
        statement = await self._get_statement(  # type: ignore[attr-defined]
            query,
            timeout,
            named=self._stmt_cache_enabled if name is None else name,  # type: ignore[attr-defined]
            use_cache=use_cache,
            record_class=record_class,
        )
        return TimedStatement(self, query, statement)

    # Where asyncpg puts together its COPY statements; private, hence guarded by a test and a pinned asyncpg.
    async def _copy_out(self, copy_stmt: str, output: Any, timeout: float | None) -> Any:  # noqa: ASYNC109
        return await super()._copy_out(_one_statement(copy_stmt), output, timeout)  # type: ignore[misc]

    async def _copy_in(self, copy_stmt: str, source: Any, timeout: float | None) -> Any:  # noqa: ASYNC109
        return await super()._copy_in(_one_statement(copy_stmt), source, timeout)  # type: ignore[misc]

    def _format_copy_where(self, where: str | None) -> Any:
        return super()._format_copy_where(_one_statement(where or ""))  # type: ignore[misc]


def _one_statement(query: str) -> str:
    if ";" in query:
        raise ScopeError("COPY goes through the simple protocol, where a semicolon would begin a second statement")
    return query


class Lease:
    """A connection for as long as its transaction: everything of a `ScopedConnection`, until `end`."""

    __slots__ = ("_connection",)

    def __init__(self, connection: ScopedConnection) -> None:
        self._connection: ScopedConnection | None = connection

    def __getattr__(self, name: str) -> Any:
        """The connection's own attribute.

        Raises:
            ScopeError: the transaction is over, and the connection may be another tenant's by now.
        """
        if self._connection is None:
            raise ScopeError("the transaction that this connection belonged to is over")
        return getattr(self._connection, name)

    def end(self) -> None:
        self._connection = None
