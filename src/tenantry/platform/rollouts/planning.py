"""What a rollout has to do: which tenants are at which revision, and which SQL leads from there to the target."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from tenantry.kernel.errors import ValidationFailedException
from tenantry.tenancy.migrations import compile_statements, head
from tenantry.tenancy.revision_files import HAS_SCHEMA
from tenantry.tenancy.revisions import UnknownRevisionError, path_between, revisions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

    from tenantry.tenancy.revisions import Revision

__all__ = (
    "Group",
    "Plan",
    "Segment",
    "UncompilableError",
    "check_slugs",
    "older_revisions",
    "plan",
    "segments",
)

_NO_SQL = re.compile(r"(?:--[^\n]*|/\*.*?\*/|[;\s])*", re.DOTALL)


class UncompilableError(Exception):
    """A revision reads what is there, so there is no SQL of it, and does not say `online = True`."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Revisions that follow each other and run in the same way."""

    start: str
    end: str
    online: bool
    """Through Alembic, step by step; else `statements` are all that is to be done."""
    statements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """The tenants that are at one revision before the target."""

    revision: str
    tenants: int
    steps: tuple[Revision, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a rollout would do at this moment."""

    target: str
    tenants: int
    """Those with a schema."""
    current: int
    """Those that are at the target."""
    groups: tuple[Group, ...]
    """The stale ones, oldest revision first."""
    unknown: dict[str, int]
    """Tenants by revisions that do not lead to the target: a newer release's, mostly. They are left alone."""
    provisioning: int
    """Tenants that are being made."""

    @property
    def stale(self) -> int:
        return sum(group.tenants for group in self.groups)


def older_revisions(target: str) -> list[str]:
    """The revisions of the tenant tree that come before `target`, from the first.

    Raises:
        UnknownRevisionError: the tree has no such revision.
    """
    line = [revision.id for revision in revisions("tenant")]
    if target not in line:
        raise UnknownRevisionError(f"the tree 'tenant' has no revision {target!r}, but {line[0]} to {line[-1]}")
    return line[: line.index(target)]


@lru_cache(maxsize=64)
def segments(start: str, target: str) -> tuple[Segment, ...]:
    """How a schema that is at `start` gets to `target`; compiled once per pair.

    Raises:
        UnknownRevisionError, RevisionError: no path leads from one to the other.
        UncompilableError: a revision on it has no SQL.
    """
    found: list[Segment] = []
    at = start
    for online, steps in groupby(path_between("tenant", start, target), key=lambda step: step.online):
        end = list(steps)[-1].id
        found.append(Segment(at, end, online, () if online else _compile(at, end)))
        at = end
    return tuple(found)


def _compile(start: str, end: str) -> tuple[str, ...]:
    try:
        compiled = compile_statements("tenant", start, end)
    except Exception as error:
        # Whatever a revision does with a connection that is not there ends in an error of its own.
        raise UncompilableError(
            f"the revisions after {start} up to {end} cannot be compiled to SQL ({type(error).__name__}: {error}); one "
            "that reads what is there says `online = True`"
        ) from error
    # What has no SQL in it, such as Alembic's own headings, PostgreSQL answers without a word, and asyncpg trips.
    return tuple(statement for statement in compiled if _NO_SQL.fullmatch(statement) is None)


async def plan(
    session: AsyncSession | AsyncConnection, target: str | None = None, only: Sequence[str] | None = None
) -> Plan:
    """What a rollout to `target` (by default the head) would do; nothing is written.

    Raises:
        UnknownRevisionError: the tree has no such revision.
        ValidationFailedException: `only` names a slug that nobody has.
    """
    target = target or head("tenant")
    older = older_revisions(target)
    if only is not None:
        await check_slugs(session, only)
    rows = await session.execute(
        text(
            f"""
            SELECT CASE WHEN {HAS_SCHEMA} THEN t.revision END AS revision, count(*) AS tenants
              FROM platform.tenant t
             WHERE (({HAS_SCHEMA}) OR t.status = 'provisioning')
               AND (CAST(:only AS text[]) IS NULL OR t.slug = ANY (CAST(:only AS text[])))
             GROUP BY 1
            """  # noqa: S608 - a constant
        ),
        {"only": None if only is None else list(only)},
    )
    counts: dict[str | None, int] = {row.revision: row.tenants for row in rows}
    provisioning = counts.pop(None, 0)
    known: dict[str, int] = {revision: count for revision, count in counts.items() if revision is not None}
    return Plan(
        target=target,
        tenants=sum(known.values()),
        current=known.get(target, 0),
        groups=tuple(
            Group(revision, known[revision], path_between("tenant", revision, target))
            for revision in older
            if revision in known
        ),
        unknown={name: known[name] for name in sorted(known) if name != target and name not in older},
        provisioning=provisioning,
    )


async def check_slugs(session: AsyncSession | AsyncConnection, slugs: Sequence[str], *, field: str = "only") -> None:
    """Refuse slugs that nobody has.

    Raises:
        ValidationFailedException: naming each of them with the nearest ones.
    """
    found: Any = await session.execute(text("SELECT slug FROM platform.tenant WHERE status <> 'purged'"))
    known = {row.slug for row in found}
    complaints = []
    for slug in dict.fromkeys(slugs):
        if slug not in known:
            near = difflib.get_close_matches(slug, sorted(known), n=3)
            hint = f" ({', '.join(near)}?)" if near else ""
            complaints.append(f"there is no organization {slug!r}{hint}")
    if complaints:
        raise ValidationFailedException.of(field, "; ".join(complaints))
