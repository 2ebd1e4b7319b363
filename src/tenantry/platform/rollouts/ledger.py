"""The rows of a rollout, as its runner reads and writes them on the owner's connection."""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tenantry.platform.rollouts.migration import Job
from tenantry.tenancy.revision_files import HAS_SCHEMA

if TYPE_CHECKING:
    from uuid import UUID

    from tenantry.platform.rollouts.migration import MigrationError
    from tenantry.tenancy.connection import DriverConnection

__all__ = ("Ledger", "Progress", "Settings", "read_progress")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rollout is."""

    rollout_id: UUID
    target: str
    status: str
    halted_reason: str | None
    total: int
    """Tenants that were found stale so far."""
    done: int
    failed: int

    @property
    def pending(self) -> int:
        return self.total - self.done - self.failed


@dataclass(frozen=True, slots=True)
class Settings:
    """A rollout's own, as it was started."""

    target: str
    canary: int
    concurrency: int
    halt_after: int
    lock_timeout: int
    max_attempts: int
    only: list[str] | None


async def read_progress(connection: DriverConnection, rollout_id: UUID) -> Progress | None:
    """How far it is, or None if there is none of that id."""
    row = await connection.fetchrow(
        """
        SELECT r.target, r.status, r.halted_reason, count(t.id) AS total,
               count(*) FILTER (WHERE t.status = 'done') AS done,
               count(*) FILTER (WHERE t.status = 'failed') AS failed
          FROM platform.rollout r LEFT JOIN platform.rollout_tenant t ON t.rollout_id = r.id
         WHERE r.id = $1 GROUP BY r.id
        """,
        rollout_id,
    )
    return None if row is None else Progress(rollout_id=rollout_id, **dict(row))


class Ledger:
    """One rollout's rows. Every statement is a transaction of its own."""

    def __init__(self, connection: DriverConnection, rollout_id: UUID, older: list[str]) -> None:
        """`older` are the revisions that lead to the target."""
        self._connection = connection
        self._id = rollout_id
        self._older = older
        # The runner's workers share the connection.
        self._lock = asyncio.Lock()

    @property
    def is_closed(self) -> bool:
        return self._connection.is_closed()

    async def settings(self) -> Settings:
        row = await self._connection.fetchrow(
            'SELECT target, canary, concurrency, halt_after, lock_timeout, max_attempts, "only"'
            "  FROM platform.rollout WHERE id = $1",
            self._id,
        )
        assert row is not None  # noqa: S101 - whoever executes it has just read it, and nobody deletes it
        return Settings(**dict(row))

    async def begin(self) -> None:
        """Give failed tenants another chance, where the rollout was resumed; `finished_at` says so."""
        await self._connection.execute(
            """
            WITH resumed AS (
                UPDATE platform.rollout SET finished_at = NULL, updated_at = now()
                 WHERE id = $1 AND status = 'running' AND finished_at IS NOT NULL RETURNING id
            )
            UPDATE platform.rollout_tenant t
               SET status = 'pending', attempts = 0, not_before = now(), finished_at = NULL, updated_at = now()
              FROM resumed WHERE t.rollout_id = resumed.id AND t.status = 'failed'
            """,
            self._id,
        )

    async def fill(self) -> int:
        """Add the stale tenants that are not in it yet; how many they were.

        The first ones that are found give the canaries: of each starting revision in turn the oldest active tenant.
        The oldest have been through most, so their data are the likeliest to refuse a new constraint; and each
        starting revision has a path of its own. A tenant whose row is locked is left for later: whatever is being done
        to it may take minutes, for which the rollout would wait.
        """
        added = await self._connection.execute(
            f"""
            WITH stale AS MATERIALIZED (
                SELECT t.id, t.revision, t.status
                  FROM platform.tenant t JOIN platform.rollout r ON r.id = $1
                 WHERE {HAS_SCHEMA} AND t.revision = ANY ($2::text[]) AND (r.only IS NULL OR t.slug = ANY (r.only))
                   AND NOT EXISTS (SELECT FROM platform.rollout_tenant f
                                    WHERE f.rollout_id = $1 AND f.tenant_id = t.id)
                   FOR KEY SHARE OF t SKIP LOCKED
            ), ranked AS (
                SELECT id, revision, row_number() OVER (PARTITION BY revision ORDER BY status <> 'active', id) AS rank
                  FROM stale
            )
            INSERT INTO platform.rollout_tenant
                   (id, rollout_id, tenant_id, wave,
                    status, from_revision, attempts, not_before, created_at, updated_at)
            SELECT platform.uuidv7(), r.id, s.id,
                   CASE WHEN row_number() OVER (ORDER BY s.rank, s.id) <= r.canary
                         AND NOT EXISTS (SELECT FROM platform.rollout_tenant f WHERE f.rollout_id = r.id)
                        THEN 0 ELSE 1 END,
                   'pending', s.revision, 0, now(), now(), now()
              FROM ranked s JOIN platform.rollout r ON r.id = $1
            ON CONFLICT (rollout_id, tenant_id) DO NOTHING
            """,  # noqa: S608 - a constant
            self._id,
            self._older,
        )
        return int(added.rpartition(" ")[2])

    async def jobs(self, wave: int, settings: Settings) -> list[Job]:
        """What is to be done in a wave. A tenant that has no schema any more is no part of the rollout any more."""
        await self._connection.execute(
            f"""
            DELETE FROM platform.rollout_tenant rt USING platform.tenant t
             WHERE rt.rollout_id = $1 AND rt.status = 'pending' AND t.id = rt.tenant_id AND NOT ({HAS_SCHEMA})
            """,  # noqa: S608 - a constant
            self._id,
        )
        rows = await self._connection.fetch(
            """
            SELECT rt.tenant_id, t.slug, t.revision, rt.attempts,
                   extract(epoch FROM rt.not_before - now())::float8 AS wait
              FROM platform.rollout_tenant rt JOIN platform.tenant t ON t.id = rt.tenant_id
             WHERE rt.rollout_id = $1 AND rt.wave = $2 AND rt.status = 'pending' ORDER BY rt.id
            """,
            self._id,
            wave,
        )
        now = asyncio.get_running_loop().time()
        return [
            Job(
                rollout_id=self._id,
                tenant_id=row["tenant_id"],
                slug=row["slug"],
                revision=row["revision"],
                target=settings.target,
                lock_timeout=settings.lock_timeout,
                attempts=row["attempts"],
                not_before=now + row["wait"],
            )
            for row in rows
        ]

    async def drop(self, job: Job) -> None:
        """Take a tenant out that has no schema any more."""
        async with self._lock:
            await self._connection.execute(
                "DELETE FROM platform.rollout_tenant WHERE rollout_id = $1 AND tenant_id = $2",
                self._id,
                job.tenant_id,
            )

    async def note(self, job: Job, error: MigrationError, *, again_in: float | None) -> None:
        """Write down what went wrong, and that it is tried again in so many seconds, or that it is not."""
        failed = again_in is None
        async with self._lock:
            await self._connection.execute(
                """
                UPDATE platform.rollout_tenant
                   SET status = $3, from_revision = $4, attempts = $5, error = $6, statement = $7,
                       not_before = now() + $8::interval, updated_at = now(),
                       finished_at = CASE WHEN $3 = 'failed' THEN now() END
                 WHERE rollout_id = $1 AND tenant_id = $2
                """,
                self._id,
                job.tenant_id,
                "failed" if failed else "pending",
                job.revision,
                job.attempts,
                str(error),
                error.statement,
                datetime.timedelta(seconds=again_in or 0),
            )

    async def failures(self) -> tuple[int, str | None]:
        """How many tenants have failed, and one of them that was a canary."""
        async with self._lock:
            row = await self._connection.fetchrow(
                "SELECT count(*) AS failed, min(t.slug) FILTER (WHERE rt.wave = 0) AS canary"
                "  FROM platform.rollout_tenant rt JOIN platform.tenant t ON t.id = rt.tenant_id"
                " WHERE rt.rollout_id = $1 AND rt.status = 'failed'",
                self._id,
            )
        assert row is not None  # noqa: S101 - an aggregate
        return row["failed"], row["canary"]

    async def unsettled(self) -> bool:
        """Whether some tenant may still have to be added: it is stale and locked, or is being made at this moment.

        An older release's provisioner makes it at an older revision.
        """
        return bool(
            await self._connection.fetchval(
                f"""
                SELECT EXISTS (
                    SELECT FROM platform.tenant t JOIN platform.rollout r ON r.id = $1
                     WHERE (r.only IS NULL OR t.slug = ANY (r.only))
                       AND (t.status = 'provisioning'
                            AND EXISTS (SELECT FROM platform.operation o
                                         WHERE o.tenant_id = t.id AND o.status = 'pending')
                            OR ({HAS_SCHEMA}) AND t.revision = ANY ($2::text[])
                            AND NOT EXISTS (SELECT FROM platform.rollout_tenant f
                                             WHERE f.rollout_id = $1 AND f.tenant_id = t.id)))
                """,  # noqa: S608 - a constant
                self._id,
                self._older,
            )
        )

    async def end(self, status: str, reason: str | None = None) -> None:
        """Say how it ended; it may have been cancelled meanwhile, and stays so."""
        await self._connection.execute(
            "UPDATE platform.rollout SET status = $2, halted_reason = $3, finished_at = now(), updated_at = now()"
            " WHERE id = $1 AND status = 'running'",
            self._id,
            status,
            reason,
        )

    async def progress(self) -> Progress:
        """How far it is."""
        async with self._lock:
            found = await read_progress(self._connection, self._id)
        assert found is not None  # noqa: S101 - as above
        return found
