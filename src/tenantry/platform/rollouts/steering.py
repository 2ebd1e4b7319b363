"""Starting, resuming and cancelling a rollout: rows and audit, for the API and the command line alike.

Nothing is migrated here. A rollout that says `running` is taken up by whoever may: the command that started it, or a
provisioner.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from tenantry.kernel.errors import (
    ConflictException,
    ResourceNotFoundException,
    ValidationFailedException,
    define_problem,
)
from tenantry.platform.audit.service import record
from tenantry.platform.rollouts.ledger import Settings
from tenantry.platform.rollouts.models import Rollout
from tenantry.platform.rollouts.opening import open_rollout, running_rollout
from tenantry.platform.rollouts.planning import UnknownSlugError, check_slugs, older_revisions
from tenantry.tenancy.migrations import head
from tenantry.tenancy.revisions import UnknownRevisionError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.platform.rollouts.planning import Fetch

__all__ = ("ROLLOUT_RUNNING", "ROLLOUT_STATE", "cancel", "fetch_in", "resume", "start_rollout")

ROLLOUT_RUNNING = define_problem(
    "rollout-running",
    409,
    "A rollout is running",
    "One rollout runs at a time; `rollout` is the id of the present one. Watch it, or cancel it.",
)
ROLLOUT_STATE = define_problem(
    "rollout-state",
    409,
    "Not in this state",
    "The rollout's present state, which `state` names, does not allow this: a running one can be cancelled, a halted "
    "or cancelled one resumed.",
)


def fetch_in(session: AsyncSession) -> Fetch:
    """Asks in a session's transaction, in the driver's own SQL."""

    async def fetch(query: str, /, *arguments: Any) -> Sequence[Any]:
        connection = await session.connection()
        return (await connection.exec_driver_sql(query, arguments)).all()

    return fetch


async def start_rollout(
    session: AsyncSession,
    *,
    target: str | None = None,
    canary: int,
    concurrency: int,
    halt_after: int,
    lock_timeout: int,
    max_attempts: int,
    only: Sequence[str] | None = None,
    requested_by: str,
) -> Rollout:
    """Write down that every tenant, or those of `only`, is to be brought to `target`.

    Args:
        session: in the control plane's scope, or the owner's.
        target: a revision of the tenant tree; its head by default.
        canary: how many tenants go first.
        concurrency: how many are migrated at once, 1 to 64.
        halt_after: how many failed tenants halt it, at least 1.
        lock_timeout: milliseconds.
        max_attempts: how often a tenant that locks keep out is tried, at least 1.
        only: slugs.
        requested_by: who asked, as the audit trail names them.

    Raises:
        ConflictException: one is running; the problem `rollout-running` holds its id.
        ValidationFailedException: there is no such revision, or no such slug.
    """
    target = target or head("tenant")
    try:
        older_revisions(target)
    except UnknownRevisionError as error:
        raise ValidationFailedException.of("target", f"Expected a revision of this release: {error}.") from error
    fetch = fetch_in(session)
    if only is not None:
        try:
            await check_slugs(fetch, only)
        except UnknownSlugError as error:
            raise ValidationFailedException.of("only", str(error)) from error
    settings = Settings(
        target=target,
        canary=canary,
        concurrency=concurrency,
        halt_after=halt_after,
        lock_timeout=lock_timeout,
        max_attempts=max_attempts,
        only=None if only is None else list(only),
    )
    made = await open_rollout(fetch, settings, requested_by=requested_by)
    if made is None:
        raise _running(await running_rollout(fetch))
    return await session.get_one(Rollout, made)


async def resume(session: AsyncSession, rollout_id: UUID, *, actor: str) -> Rollout:
    """Let a halted or cancelled rollout go on; its failed tenants are tried again.

    Raises:
        ResourceNotFoundException: there is none of that id.
        ConflictException: it is neither halted nor cancelled, or another one is running.
    """
    rollout = await _locked(session, rollout_id)
    if rollout.status not in {"halted", "cancelled"}:
        raise _wrong_state(rollout, "resumed")
    if (running := await running_rollout(fetch_in(session))) is not None:
        raise _running(running)
    # `finished_at` stays until whoever executes it has seen it: that is how they know to begin anew with the failed.
    rollout.status, rollout.halted_reason = "running", None
    record(session, actor=actor, action="rollout.resume", target=str(rollout.id))
    try:
        await session.flush()
    except IntegrityError as error:
        if "uq_rollout_running" not in str(error.orig):
            raise
        raise _running(None) from error
    return rollout


async def cancel(session: AsyncSession, rollout_id: UUID, *, actor: str) -> Rollout:
    """End a running rollout: the tenants under way are finished, the others stay as they are.

    Raises:
        ResourceNotFoundException: there is none of that id.
        ConflictException: it is not running.
    """
    rollout = await _locked(session, rollout_id)
    if rollout.status != "running":
        raise _wrong_state(rollout, "cancelled")
    rollout.status, rollout.finished_at = "cancelled", datetime.datetime.now(datetime.UTC)
    record(session, actor=actor, action="rollout.cancel", target=str(rollout.id))
    await session.flush()
    return rollout


async def _locked(session: AsyncSession, rollout_id: UUID) -> Rollout:
    found: Rollout | None = await session.scalar(select(Rollout).where(Rollout.id == rollout_id).with_for_update())
    if found is None:
        raise ResourceNotFoundException("There is no such rollout.")
    return found


def _running(rollout_id: UUID | None) -> ConflictException:
    named: dict[str, Any] = {} if rollout_id is None else {"rollout": str(rollout_id)}
    return ConflictException(
        f"The rollout {rollout_id} is running." if rollout_id else "A rollout has just been started.",
        problem=ROLLOUT_RUNNING,
        **named,
    )


def _wrong_state(rollout: Rollout, verb: str) -> ConflictException:
    return ConflictException(
        f"The rollout is {rollout.status}, and cannot be {verb}.", problem=ROLLOUT_STATE, state=rollout.status
    )
