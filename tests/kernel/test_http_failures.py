"""What failures of PostgreSQL and Redis become, as SQLAlchemy's dialect really wraps them."""

from __future__ import annotations

import errno
from typing import Any

import asyncpg
import msgspec
import pytest
import redis.exceptions
import sqlalchemy.exc
from advanced_alchemy.exceptions import ForeignKeyError, NotFoundError, RepositoryError, wrap_sqlalchemy_exception
from advanced_alchemy.exceptions import IntegrityError as RepositoryIntegrityError
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection, PGDialect_asyncpg
from sqlalchemy.orm.exc import StaleDataError

from tenantry.kernel.errors import ApplicationException
from tenantry.kernel.http.failures import explain_failure, hide_parameters, sqlstate_of
from tenantry.kernel.security import BrokenSealError, UnknownSealingKeyError, VaultError

SECRET = "ann@acme.example"
STATEMENT = 'INSERT INTO "user" (email) VALUES ($1)'


def wrapped(driver_error: Exception, *, disconnect: bool = False) -> sqlalchemy.exc.DBAPIError:
    """What SQLAlchemy raises for an error of asyncpg, made by its own code."""
    dialect_class: Any = PGDialect_asyncpg
    dialect, dbapi = dialect_class(), dialect_class.import_dbapi()
    try:
        AsyncAdapt_asyncpg_connection._handle_exception_no_connection(dbapi, driver_error)
    except Exception as translated:
        made = sqlalchemy.exc.DBAPIError.instance(
            STATEMENT,
            {"email": SECRET},
            translated,
            dbapi.Error,
            connection_invalidated=disconnect,
            dialect=dialect,
        )
        assert isinstance(made, sqlalchemy.exc.DBAPIError)
        made.__cause__ = translated
        return made


def server_error(state: str, **fields: str) -> Exception:
    """An error as asyncpg makes it of the server's message; `fields` by their letters in the protocol."""
    detail = f"Key (email)=({SECRET}) already exists."
    made = asyncpg.PostgresError.new({"S": "ERROR", "C": state, "M": "it failed", "D": detail, **fields})
    assert isinstance(made, Exception)
    return made


def explained(error: BaseException) -> tuple[int, str]:
    found = explain_failure(error)
    assert found is not None
    shown = found.detail + msgspec.json.encode(found.errors).decode()
    assert SECRET not in shown
    assert "INSERT" not in shown
    if found.status_code == 503:
        assert (found.headers or {})["Retry-After"] == "1"
    return found.status_code, found.problem.slug


STATES = {
    "23505": (409, "conflict"),
    "23503": (409, "conflict"),
    "23001": (409, "conflict"),
    "23P01": (409, "conflict"),
    "23514": (422, "validation"),
    "23502": (422, "validation"),
    "22021": (422, "validation"),
    "22003": (422, "validation"),
    "22P02": (422, "validation"),
    "22001": (422, "validation"),
    "57014": (503, "timeout"),
    "25P03": (503, "timeout"),
    "55P03": (503, "unavailable"),
    "40001": (503, "unavailable"),
    "40P01": (503, "unavailable"),
    "53300": (503, "unavailable"),
    "53100": (503, "unavailable"),
    "57P01": (503, "unavailable"),
    "57P02": (503, "unavailable"),
    "57P03": (503, "unavailable"),
    "08006": (503, "unavailable"),
    "08003": (503, "unavailable"),
    "3D000": (503, "unavailable"),
    "28000": (503, "unavailable"),
}


@pytest.mark.parametrize("state", STATES)
def test_the_servers_sqlstate_decides_raw_and_wrapped(state: str) -> None:
    raw = server_error(state)
    assert explained(raw) == STATES[state]
    assert explained(wrapped(raw)) == STATES[state]
    assert sqlstate_of(wrapped(raw)) == state


@pytest.mark.parametrize("state", STATES)
def test_it_decides_too_when_advanced_alchemy_calls_everything_an_integrity_error(state: str) -> None:
    with pytest.raises(RepositoryError) as raised, wrap_sqlalchemy_exception(dialect_name="postgresql"):
        raise wrapped(server_error(state))
    assert explained(raised.value) == STATES[state]


@pytest.mark.parametrize("state", ["42501", "42P01", "42601", "25006", "25001", "XX000", "P0001", "0A000"])
def test_what_is_our_own_mistake_stays_an_internal_error(state: str) -> None:
    assert explain_failure(wrapped(server_error(state))) is None


def test_the_details_that_a_service_gives_are_shown() -> None:
    messages: Any = {"duplicate_key": "A user with this address exists already.", "integrity": "It cannot be stored."}
    with (
        pytest.raises(RepositoryError) as raised,
        wrap_sqlalchemy_exception(error_messages=messages, dialect_name="postgresql"),
    ):
        raise wrapped(server_error("23505", M='duplicate key value violates unique constraint "uq_user_email"'))
    found = explain_failure(raised.value)
    assert found is not None
    assert found.status_code == 409
    assert found.detail in messages.values()


def test_a_missing_value_names_its_field_as_the_wire_spells_it() -> None:
    found = explain_failure(wrapped(server_error("23502", c="owner_email")))
    assert found is not None
    assert [error.field for error in found.errors] == ["ownerEmail"]


def client_error(cause: Exception) -> Exception:
    error = asyncpg.exceptions.DataError(f"invalid input for query argument $1: {SECRET!r} ({cause})")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "cause", [OverflowError("value out of int32 range"), UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates")]
)
def test_a_value_that_asyncpg_cannot_encode_is_the_requests_fault(cause: Exception) -> None:
    assert explained(wrapped(client_error(cause))) == (422, "validation")


def test_an_argument_of_the_wrong_python_type_is_ours() -> None:
    assert explain_failure(wrapped(client_error(TypeError("'str' object cannot be interpreted as an integer")))) is None


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed"),
        ConnectionResetError(),
        BrokenPipeError(),
        OSError("Multiple exceptions: [Errno 111], [Errno 111]"),
        OSError(errno.EHOSTUNREACH, "No route to host"),
        sqlalchemy.exc.TimeoutError("QueuePool limit of size 1 overflow 0 reached"),
        wrapped(asyncpg.InterfaceError("connection is closed"), disconnect=True),
        wrapped(asyncpg.InterfaceError("cannot call Connection.execute(): the underlying connection is closed")),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.exceptions.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        wrapped(asyncpg.exceptions.InvalidCachedStatementError("cached statement plan is invalid")),
        redis.exceptions.ConnectionError("Connection refused"),
        redis.exceptions.TimeoutError("Timeout reading from socket"),
        redis.exceptions.BusyLoadingError("LOADING"),
        redis.exceptions.ReadOnlyError("READONLY"),
        VaultError("there is no vault at /keys/vault.json"),
        UnknownSealingKeyError("0" * 16),
    ],
    ids=lambda error: f"{type(error).__name__}: {error}"[:60],
)
def test_a_service_that_is_away_is_a_503(error: Exception) -> None:
    assert explained(error) == (503, "unavailable")


def test_a_deadline_of_our_own_is_a_timeout() -> None:
    assert explained(TimeoutError()) == (503, "timeout")


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/etc/keyring.json"),
        PermissionError(errno.EACCES, "Permission denied", "/etc/keyring.json"),
        wrapped(asyncpg.InterfaceError("cannot perform operation: another operation is in progress")),
        redis.exceptions.ResponseError("WRONGTYPE"),
        redis.exceptions.NoPermissionError("NOPERM"),
        sqlalchemy.exc.InvalidRequestError("This session is in 'prepared' state"),
        KeyError("x"),
        ValueError("x"),
        # Somebody has moved a sealed value to where it does not belong, or damaged it: it will not come right.
        BrokenSealError("the sealed value is damaged, or of another purpose or owner"),
    ],
    ids=lambda error: f"{type(error).__name__}: {error}"[:60],
)
def test_bugs_are_not_passed_off_as_an_outage(error: Exception) -> None:
    assert explain_failure(error) is None


def test_repositories_not_found_and_conflicts() -> None:
    assert explained(NotFoundError(detail="There is no such team.")) == (404, "not-found")
    assert explained(ForeignKeyError(detail="The team is gone.")) == (409, "conflict")
    assert explained(RepositoryIntegrityError(detail="It exists.")) == (409, "conflict")
    assert explained(StaleDataError("UPDATE statement on table 'team' expected to update 1 row(s)")) == (
        409,
        "conflict",
    )
    assert explain_failure(RepositoryError(detail="An attribute error occurred during processing")) is None
    found = explain_failure(NotFoundError(detail="There is no such team."))
    assert isinstance(found, ApplicationException)
    assert found.detail == "There is no such team."


def test_values_of_statements_are_hidden_from_logs() -> None:
    error = wrapped(server_error("42601"))
    error.hide_parameters = False
    outer = RuntimeError("while creating a user")
    outer.__cause__ = error
    assert SECRET in str(error)
    hide_parameters(outer)
    assert SECRET not in str(error)
