"""What failures of PostgreSQL and Redis mean to a client.

SQLAlchemy's asyncpg dialect wraps unevenly: a statement time-out arrives as a bare DBAPIError, a refused connection
as the operating system's error, Advanced Alchemy calls any failed statement an integrity error. So the chain of
causes is searched for the server's SQLSTATE, which decides; only where there is none do classes count.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from advanced_alchemy.exceptions import (
    AdvancedAlchemyError,
    NotFoundError,
)
from advanced_alchemy.exceptions import (
    IntegrityError as RepositoryIntegrityError,
)
from asyncpg.exceptions import InterfaceError, InternalClientError, InvalidCachedStatementError, PostgresError
from redis.exceptions import (
    ClusterDownError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError

from tenantry.kernel.errors import (
    ApplicationException,
    ConflictException,
    FieldError,
    ResourceNotFoundException,
    StatementTimeoutException,
    TooManyRequestsException,
    UnavailableException,
    ValidationFailedException,
)
from tenantry.kernel.schema import camel
from tenantry.kernel.security import HasherBusy, HasherShareBusy, PasswordRefused, UnknownSealingKeyError, VaultError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("causes", "explain_failure", "hide_parameters", "sqlstate_of")

_DATABASE_ERRORS = (SQLAlchemyError, AdvancedAlchemyError, PostgresError, InterfaceError, InternalClientError)
_REDIS_AWAY = (RedisConnectionError, RedisTimeoutError, ClusterDownError, ReadOnlyError)

# asyncpg's own complaints have no SQLSTATE; these are the ones about a connection that is gone, the others are bugs
# ("another operation is in progress").
_CONNECTION_GONE = re.compile(
    r"connection (?:is|was|has been) (?:closed|lost|released)|pool is clos|unexpected conn"
    # Between the server's farewell and the end of the stream, the driver's state machine is at a loss.
    r"|cannot switch to state"
)

_CONFLICTS = {
    "23505": "A record with these values exists already.",
    "23503": "Something that this refers to does not exist, or something still refers to it.",
    "23001": "Something still refers to this.",
    "23P01": "A record that excludes this one exists already.",
}
_MISSING_VALUE, _CHECK = "23502", "23514"
_INVALID_INPUT = "22000"

# https://www.postgresql.org/docs/18/errcodes-appendix.html
_BUSY = {
    "40001": "The data changed meanwhile.",
    "40P01": "The data changed meanwhile.",
    "40003": "Whether the change was stored is unknown.",
    "55P03": "The data is being changed by somebody else.",
    "55006": "The data is being changed by somebody else.",
}
_UNAVAILABLE_CLASSES = frozenset({"08", "28", "53", "58"})
_UNAVAILABLE_STATES = frozenset({"57P01", "57P02", "57P03", "57P04", "57P05", "3D000"})
_TIMEOUTS = frozenset({"57014", "25P03", "25P04"})


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from, SQLAlchemy's `orig` included, nearest first."""
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        link = pending.pop(0)
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        pending += [getattr(link, "orig", None), link.__cause__]


def sqlstate_of(error: BaseException) -> str | None:
    """The SQLSTATE that the server, or asyncpg in its name, gave anywhere in the chain of causes."""
    for link in causes(error):
        state = getattr(link, "sqlstate", None)
        if isinstance(state, str) and len(state) == 5:
            return state
    return None


def hide_parameters(error: BaseException) -> None:
    """Keep the values of a failed statement out of logs: they are people's data, and password hashes."""
    for link in causes(error):
        if isinstance(link, StatementError):
            link.hide_parameters = True


def explain_failure(error: BaseException) -> ApplicationException | None:
    """The problem that a failure of a backing service is to a client; None where it is our own bug.

    Neither SQL nor values are shown: details are ours, or those that a service's `error_messages` give.
    """
    if isinstance(error, _DATABASE_ERRORS):
        return _explain_database(error)
    if isinstance(error, HasherShareBusy):
        return TooManyRequestsException(
            "Too many passwords of the organization are being checked.", retry_after=error.retry_after
        )
    if isinstance(error, HasherBusy):
        return UnavailableException("Too many passwords are being checked.", retry_after=error.retry_after)
    if isinstance(error, PasswordRefused):
        return ValidationFailedException.of("password", str(error))
    if isinstance(error, VaultError | UnknownSealingKeyError):
        return UnavailableException("Stored secrets cannot be read or written now.")
    if isinstance(error, RedisError):
        return UnavailableException() if isinstance(error, _REDIS_AWAY) else None
    if isinstance(error, TimeoutError):
        return StatementTimeoutException()
    if isinstance(error, OSError) and _is_network(error):
        return UnavailableException()
    return None


def _is_network(error: OSError) -> bool:
    """Errors about files name the file, errors about sockets name none; the former are bugs of ours."""
    return error.filename is None


def _explain_database(error: BaseException) -> ApplicationException | None:
    state = sqlstate_of(error)
    if state is not None:
        return _explain_state(state, error)
    for link in causes(error):
        if isinstance(link, InvalidCachedStatementError):
            return UnavailableException()
        if isinstance(link, PoolTimeoutError):
            return UnavailableException("The service is busy.")
        if isinstance(link, DBAPIError) and link.connection_invalidated:
            return UnavailableException()
        if isinstance(link, InterfaceError | InternalClientError) and _CONNECTION_GONE.search(str(link)):
            return UnavailableException()
        if isinstance(link, OSError) and _is_network(link):
            return UnavailableException()
    if isinstance(error, NotFoundError):
        return ResourceNotFoundException(_own_detail(error))
    if isinstance(error, RepositoryIntegrityError) and not isinstance(error.__cause__, StatementError):
        return ConflictException(_own_detail(error))
    if isinstance(error, StaleDataError):
        return ConflictException("The record was changed or removed meanwhile.")
    return None


def _explain_state(state: str, error: BaseException) -> ApplicationException | None:
    if state in _TIMEOUTS:
        return StatementTimeoutException()
    if state in _BUSY:
        return UnavailableException(f"{_BUSY[state]} Try again.")
    if state[:2] in _UNAVAILABLE_CLASSES or state in _UNAVAILABLE_STATES:
        return UnavailableException()
    if any(isinstance(link, InvalidCachedStatementError) for link in causes(error)):
        # A migration changed a result's shape under a prepared statement; SQLAlchemy has emptied the cache by now.
        return UnavailableException("The data's form changed meanwhile. Try again.")
    if state in _CONFLICTS:
        return ConflictException(_own_detail(error) or _CONFLICTS[state])
    if state in (_MISSING_VALUE, _CHECK):
        return ValidationFailedException(
            _own_detail(error) or "A value is missing, or out of bounds.", errors=_columns(error)
        )
    if state == _INVALID_INPUT and any(isinstance(link, TypeError) for link in causes(error)):
        return None  # asyncpg refused the Python type of an argument: a mistake in our code, not in the request
    if state.startswith("22"):
        return ValidationFailedException("A value cannot be stored: it is out of range, or not valid text.")
    return None


def _columns(error: BaseException) -> list[FieldError]:
    """The column of a violated NOT NULL; other violations do not name theirs."""
    for link in causes(error):
        if isinstance(link, PostgresError) and (column := getattr(link, "column_name", None)):
            return [FieldError(field=camel(column), message="Required, but missing")]
    return []


def _own_detail(error: BaseException) -> str:
    """Advanced Alchemy's detail, unless it quotes what the database said, with statement and values."""
    detail = error.detail if isinstance(error, AdvancedAlchemyError) else ""
    for link in causes(error):
        if link is not error:
            quoted = (str(link), getattr(link, "detail", None))
            if any(text and text in detail for text in quoted):
                return ""
    return detail
