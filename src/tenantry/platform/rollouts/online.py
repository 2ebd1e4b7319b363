"""Migrating one tenant where revisions say `online = True`: through Alembic, on a connection of SQLAlchemy's.

Apart from `migration`, since its imports are those of a rollout that has such a revision in its path, and of no other.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import asyncpg
from sqlalchemy.exc import DBAPIError

from tenantry.platform.rollouts.migration import (
    LOST,
    MigrationError,
    ending,
    explained,
    first_line,
    is_lost,
    opening,
    prepare_transaction,
)
from tenantry.platform.rollouts.planning import segments
from tenantry.tenancy.database import owner_engine
from tenantry.tenancy.migrations import upgrade

if TYPE_CHECKING:
    from tenantry.platform.rollouts.migration import Job
    from tenantry.tenancy.connection import DriverConnection

__all__ = ("OnlineMigrations",)


class OnlineMigrations:
    """A small pool of the owner's, and what is run on it; `close` it."""

    def __init__(self, owner_url: str, concurrency: int) -> None:
        self._engine = owner_engine(owner_url, pool_size=concurrency)

    async def close(self) -> None:
        await self._engine.dispose()

    async def migrate(self, job: Job) -> None:
        """As `migration.migrate`, but revisions that are `online` run through Alembic, the others as compiled.

        Raises: as `migration.migrate`; of a revision's own exceptions, a MigrationError as well.
        """
        at = f"revision {job.revision}"
        try:
            async with self._engine.begin() as connection:
                # SQLAlchemy begins with its first statement; the driver's own come after it.
                # Its logic may think for longer than the owner's transactions usually may.
                await connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout TO '1h'")
                driver = cast("DriverConnection", (await connection.get_raw_connection()).driver_connection)
                await prepare_transaction(driver, job.lock_timeout)
                for piece in opening(job):
                    at = piece
                    await driver.execute(piece)
                for segment in segments(job.revision, job.target):
                    for statement in segment.statements:
                        at = statement
                        await driver.execute(statement)
                    if segment.online:
                        at = f"-- revision {segment.end}, through Alembic"
                        await connection.run_sync(upgrade, "tenant", segment.end)
                for piece in ending(job):
                    at = piece
                    await driver.execute(piece)
        except asyncpg.PostgresError as error:
            if is_lost(error):
                raise
            raise explained(error, at) from error
        except DBAPIError as error:
            if is_lost(error):
                raise
            raise explained(_driver_error(error), error.statement or at) from error
        except (MigrationError, asyncio.CancelledError, *LOST):
            raise
        except Exception as error:
            # A revision's own logic: whatever it raises, it is this tenant's failure and nobody else's.
            raise MigrationError(f"{type(error).__name__}: {first_line(error)}", statement=at) from error


def _driver_error(error: DBAPIError) -> asyncpg.PostgresError:
    """What the server said, inside SQLAlchemy's wrapping of it."""
    found: Any = error.orig
    while found is not None and not isinstance(found, asyncpg.PostgresError):
        found = found.__cause__
    return asyncpg.PostgresError(str(error.orig)) if found is None else found
