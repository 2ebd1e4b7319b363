"""Migrating one tenant: one message, one transaction, in which the ledger follows the truth.

The truth is the schema's own `alembic_version`. It is locked and compared before anything is done, so it does not
matter who else had the same idea, or what became of an attempt whose answer was lost.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg
from sqlalchemy.exc import DBAPIError

from tenantry.platform.rollouts.planning import segments
from tenantry.tenancy.revision_files import HAS_SCHEMA
from tenantry.tenancy.scope import schema_name

if TYPE_CHECKING:
    from uuid import UUID

    from tenantry.tenancy.connection import DriverConnection

__all__ = (
    "LOST",
    "Job",
    "MigrationError",
    "NoSchemaError",
    "OtherRevisionError",
    "ending",
    "explained",
    "first_line",
    "is_lost",
    "migrate",
    "opening",
    "prepare",
    "prepare_transaction",
    "raise_cancelled",
)

LOST = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    # Of a connection that was cut off in the middle of a statement, at the next one.
    asyncpg.InternalClientError,
)
"""What a connection that is gone looks like, besides the server's own farewell."""

_FAREWELL = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03"})
# Somebody holds a lock, or something is used up for the moment: the same statement may succeed a second later.
_TRANSIENT = frozenset({"55P03", "40P01", "40001", "57014", "55006"})
_TRANSIENT_CLASSES = ("53",)

# SQLSTATEs of the guard's own (PostgreSQL leaves classes that begin with I to Z to others, Appendix A).
_OTHER_REVISION = "TR001"
_NO_SCHEMA = "TR002"
_LET_GO = "TR003"

# In the connection's own temporary schema: they are parsed and planned once for each connection, not for each tenant,
# and belong to the release that runs.
_FUNCTIONS = f"""
CREATE OR REPLACE FUNCTION pg_temp.rollout_begin(own_id uuid, schema text, expected text) RETURNS void
LANGUAGE plpgsql AS $function$
DECLARE
    found_revision text;
BEGIN
    IF EXISTS (SELECT FROM platform.operation o WHERE o.tenant_id = own_id AND o.status = 'pending') THEN
        -- An operation holds its tenant's row from beginning to end, and may drop the schema. Whether it has begun is
        -- asked, and the row is not kept: otherwise nobody could suspend the tenant while a large table is rewritten.
        BEGIN
            PERFORM FROM platform.tenant t WHERE t.id = own_id FOR NO KEY UPDATE NOWAIT;
            RAISE EXCEPTION USING ERRCODE = '{_LET_GO}';
        EXCEPTION WHEN SQLSTATE '{_LET_GO}' THEN NULL;
        END;
    END IF;
    IF NOT EXISTS (SELECT FROM platform.tenant t WHERE t.id = own_id AND {HAS_SCHEMA}) THEN
        RAISE EXCEPTION 'the tenant has no schema any more' USING ERRCODE = '{_NO_SCHEMA}';
    END IF;
    EXECUTE format('SELECT version_num FROM %I.alembic_version', schema) INTO found_revision;
    IF found_revision IS DISTINCT FROM expected THEN
        RAISE EXCEPTION 'another revision'
            USING ERRCODE = '{_OTHER_REVISION}', DETAIL = coalesce(found_revision, '');
    END IF;
END
$function$;
CREATE OR REPLACE FUNCTION pg_temp.rollout_end(of_rollout uuid, own_id uuid, start text, target text) RETURNS void
LANGUAGE plpgsql AS $function$
BEGIN
    UPDATE platform.tenant SET revision = target, updated_at = now() WHERE id = own_id;
    -- Where it began is known already where somebody else has brought it there.
    UPDATE platform.rollout_tenant
       SET status = 'done', from_revision = CASE WHEN start = target THEN from_revision ELSE start END,
           attempts = attempts + 1, error = NULL, statement = NULL,
           duration = (extract(epoch FROM clock_timestamp() - now()) * 1000)::integer,
           finished_at = clock_timestamp(), updated_at = clock_timestamp()
     WHERE rollout_id = of_rollout AND tenant_id = own_id;
END
$function$
"""  # noqa: S608 - constants

_REVISION = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_TEXT_LIMIT = 2000


@dataclass(slots=True)
class Job:
    """One tenant of one rollout."""

    rollout_id: UUID
    tenant_id: UUID
    slug: str
    revision: str
    """The one that its schema is believed to have."""
    target: str
    lock_timeout: int
    """Milliseconds."""
    attempts: int = 0
    not_before: float = 0.0
    """On the event loop's clock."""

    @property
    def schema(self) -> str:
        return schema_name(self.tenant_id)

    @property
    def is_online(self) -> bool:
        """Whether some revision on its path runs through Alembic."""
        return any(segment.online for segment in segments(self.revision, self.target))


class MigrationError(Exception):
    """A tenant could not be migrated; its schema is as it was."""

    def __init__(self, message: str, *, statement: str | None = None, transient: bool = False) -> None:
        super().__init__(message)
        self.statement = statement
        """The SQL that failed; None where the server does not say and nobody has looked yet."""
        self.transient = transient
        """Whether it may succeed when it is tried again."""


class OtherRevisionError(Exception):
    """The schema is not at the revision that it was believed to have."""

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found


class NoSchemaError(Exception):
    """There is nothing to migrate any more: the tenant was archived or purged."""


def is_lost(error: BaseException) -> bool:
    """Whether the connection is gone, so that nobody knows what became of the last message."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or (error.orig is not None and is_lost(error.orig))
    state = getattr(error, "sqlstate", None)
    if state is not None:
        return state in _FAREWELL or state.startswith("08")
    return isinstance(error, LOST)


def raise_cancelled(error: Exception) -> None:
    """Raise what was meant, where the current task was cancelled.

    Cancelled in the middle of a statement, asyncpg may raise that the connection is gone instead, and whoever outlasts
    losses would go on.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError from error


async def prepare(connection: DriverConnection, lock_timeout: int) -> None:
    """Make a connection ready for `migrate`.

    Args:
        connection: the owner's.
        lock_timeout: in milliseconds. Statements have no limit: a large table takes as long as it takes, and what
            others wait for is limited by the lock's.
    """
    await connection.execute(
        f"SET lock_timeout TO {int(lock_timeout)}; SET statement_timeout TO 0;"
        # A server that crashes may forget the last tenants' migrations, each as a whole and with its rows here: the
        # rollout finds them stale again. Whoever writes to such a tenant waits for the disk, and with it for the
        # migration; so does the end of the rollout. (Waiting at each of a thousand tenants: 1.4 s instead of 1.1.)
        f"SET synchronous_commit TO off; {_FUNCTIONS}"
    )


async def prepare_transaction(connection: DriverConnection, lock_timeout: int) -> None:
    """The same until the open transaction ends, which waits for the disk."""
    await connection.execute(
        f"SET LOCAL lock_timeout TO {int(lock_timeout)}; SET LOCAL statement_timeout TO 0; {_FUNCTIONS}"
    )


async def migrate(connection: DriverConnection, job: Job, *, stepwise: bool = False) -> None:
    """Bring the tenant from its revision to the target by the compiled SQL, and write that down, all or nothing.

    One round trip, on a connection that is prepared. PostgreSQL does not say which statement of a message ran into a
    lock or into the data; `stepwise`, each statement is a message of its own, and the error names it.

    Raises:
        MigrationError: a statement failed.
        OtherRevisionError: the schema is at another revision; nothing was done.
        NoSchemaError: the tenant has none any more.
        OSError, asyncpg.InterfaceError, asyncpg.PostgresError: the connection is lost (`is_lost`).
    """
    compiled = [statement for segment in segments(job.revision, job.target) for statement in segment.statements]
    pieces = ["BEGIN", *opening(job), *compiled, *ending(job), "COMMIT"]
    messages = pieces if stepwise else [_message(pieces)]
    for message in messages:
        try:
            await connection.execute(message)
        except asyncpg.PostgresError as error:
            if is_lost(error):
                raise
            await connection.execute("ROLLBACK")
            statement = message if stepwise else _statement_at(pieces, error)
            raise explained(error, statement) from error


def opening(job: Job) -> tuple[str, ...]:
    """What comes before the revisions, in the same transaction: the path, the lock and the guard."""
    return (
        f'SET LOCAL search_path TO "{job.schema}"',
        # Whoever else migrates this schema waits here, and finds it migrated. The table, not its row: that would be
        # written twice.
        f'LOCK TABLE "{job.schema}".alembic_version IN SHARE ROW EXCLUSIVE MODE',
        f"SELECT pg_temp.rollout_begin({_quoted(str(job.tenant_id))}, '{job.schema}', {_quoted(job.revision)})",
    )


def ending(job: Job) -> tuple[str, ...]:
    """What comes after them: the ledger's rows."""
    ids = f"{_quoted(str(job.rollout_id))}, {_quoted(str(job.tenant_id))}"
    return (f"SELECT pg_temp.rollout_end({ids}, {_quoted(job.revision)}, {_quoted(job.target)})",)


def _message(pieces: list[str]) -> str:
    # Each on a line of its own: a piece may end in a comment.
    return "".join(f"{piece}\n;\n" for piece in pieces)


def _statement_at(pieces: list[str], error: asyncpg.PostgresError) -> str | None:
    """The piece of the message that the error's position, in characters from 1, is in."""
    position = getattr(error, "position", None)
    if position is None:
        return None
    left = int(position)
    for piece in pieces:
        left -= len(piece) + len("\n;\n")
        if left <= 0:
            return piece
    return None


def explained(error: asyncpg.PostgresError, statement: str | None) -> Exception:
    """The error that `migrate` raises for what the server says of `statement`."""
    state = error.sqlstate or ""
    if state == _OTHER_REVISION:
        return OtherRevisionError(error.detail or "")
    if state == _NO_SCHEMA:
        return NoSchemaError(str(error))
    return MigrationError(
        f"{state}: {first_line(error)}",
        statement=None if statement is None else statement[:_TEXT_LIMIT],
        transient=state in _TRANSIENT or state.startswith(_TRANSIENT_CLASSES),
    )


def first_line(error: Exception) -> str:
    """What an exception says, without what it quotes."""
    # What follows, the detail, may quote the row; and the report goes to operators, who may not read tenants' data.
    said = str(error.args[0] if error.args else error)
    return said.splitlines()[0][:_TEXT_LIMIT] if said else ""


def _quoted(value: str) -> str:
    """A UUID or a revision as SQL's literal.

    Raises:
        ValueError: it is neither.
    """
    if not _REVISION.fullmatch(value):
        raise ValueError(f"not a revision: {value!r}")
    return f"'{value}'"
