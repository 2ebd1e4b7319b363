"""How a command ends when something went wrong: an exit code that means something, and one line on stderr."""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING

import rich_click as click

if TYPE_CHECKING:
    from tenantry.kernel.errors import ApplicationException

__all__ = ("CommandError", "ExitCode", "report")


class ExitCode(enum.IntEnum):
    """What the command line ends with; `tenantry --help` documents them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNAVAILABLE = 5


class CommandError(Exception):
    """A command cannot do what it was asked for, for a reason that the text tells."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


def report(error: Exception) -> int:
    """Say on stderr what is wrong, and return the exit code.

    Raises the error again where it is nothing that was to be expected: then the traceback is what is needed.
    """
    code, message = _explain(error)
    if message:
        click.echo(message if "\n" in message else f"Error: {message}", err=True)
    return code


def _explain(error: Exception) -> tuple[int, str]:
    if isinstance(error, click.Abort):
        return ExitCode.FAILED, "aborted"
    if isinstance(error, click.ClickException):
        message = " ".join(error.format_message().split())
        if isinstance(error, click.UsageError) and error.ctx is not None:
            message += f" See `{error.ctx.command_path} --help`."
        return error.exit_code, message
    if isinstance(error, CommandError):
        return error.code, str(error)
    # Imported here, and the heavy ones last: the overview of commands does without all of them.
    from tenantry.dev.process import AlreadyRunning, ServerError
    from tenantry.kernel.security.keyfile import KeyFileError
    from tenantry.kernel.settings import SettingsError

    if isinstance(error, SettingsError):
        return ExitCode.USAGE, f"{error}\nRun `tenantry settings --help` to see how settings are given."
    if isinstance(error, AlreadyRunning):
        return ExitCode.CONFLICT, str(error)
    if isinstance(error, ServerError | KeyFileError):
        return ExitCode.FAILED, str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return ExitCode.FAILED, f"{error.filename}: {error.strerror}"
    return _explain_service(error)


def _explain_service(error: Exception) -> tuple[int, str]:
    from tenantry.kernel.errors import ApplicationException
    from tenantry.kernel.http.failures import explain_failure
    from tenantry.kernel.mail.templates import TemplateProblem
    from tenantry.platform.tenants.files import FilesError

    if isinstance(error, FilesError | TemplateProblem):
        return ExitCode.USAGE, str(error)
    if (database := _database_problem(error)) is not None:
        return database
    found = error if isinstance(error, ApplicationException) else explain_failure(error)
    if found is None:
        raise error
    if isinstance(error, OSError):
        # The address is not in it where asyncpg has tried several, and never a password.
        return ExitCode.UNAVAILABLE, f"PostgreSQL does not answer: {error}"
    return _code_of(found), _text_of(found)


def _database_problem(error: Exception) -> tuple[int, str] | None:
    """What the server says of our log-in and our schema, which no request of a client would be told."""
    from tenantry.kernel.http.failures import causes, sqlstate_of

    if (state := sqlstate_of(error)) is None:
        return None
    # The server's own words: SQLAlchemy's wrapping adds the statement and its values.
    server = next(link for link in causes(error) if getattr(link, "sqlstate", None) == state)
    said = str(server).partition("\n")[0].removeprefix(f"{type(server)}: ")
    if state.startswith("28"):
        return ExitCode.USAGE, f"PostgreSQL refuses the log-in: {said}"
    if state == "3D000":
        return ExitCode.USAGE, f"PostgreSQL has no such database: {said}"
    if state in {"42P01", "3F000", "42703"}:
        return ExitCode.FAILED, "the database's shared schema is not this release's: run `tenantry migrate shared`"
    if state == "42501":
        return ExitCode.USAGE, f"PostgreSQL does not allow this to the role of that address: {said}"
    return None


def _code_of(problem: ApplicationException) -> ExitCode:
    if "nearest" in problem.members:
        # A slug that was typed here: a mistake of spelling, not something that has gone meanwhile.
        return ExitCode.USAGE
    match problem.status_code:
        case 400 | 422:
            return ExitCode.USAGE
        case 404:
            return ExitCode.NOT_FOUND
        case 409:
            return ExitCode.CONFLICT
        case 408 | 429 | 503:
            return ExitCode.UNAVAILABLE
        case _:
            return ExitCode.FAILED


def _text_of(problem: ApplicationException) -> str:
    if not problem.errors:
        return problem.detail
    return "; ".join(f"{_option(item.field)}: {item.message}" for item in problem.errors)


def _option(name: str) -> str:
    """`ownerEmail` as it is typed here: `owner-email`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
