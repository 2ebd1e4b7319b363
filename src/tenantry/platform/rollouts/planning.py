"""What a rollout has to do: which tenants are at which revision, and which SQL leads from there to the target."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol

from tenantry.tenancy.migrations import compile_statements, head
from tenantry.tenancy.revision_files import HAS_SCHEMA
from tenantry.tenancy.revisions import UnknownRevisionError, path_between, revisions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tenantry.tenancy.revisions import Revision

__all__ = (
    "Fetch",
    "Group",
    "Plan",
    "Segment",
    "UncompilableError",
    "UnknownSlugError",
    "check_slugs",
    "older_revisions",
    "plan",
    "segments",
)

_NO_SQL = re.compile(r"(?:--[^\n]*|/\*.*?\*/|[;\s])*", re.DOTALL)


_HINTED = 3

_COUNTS = f"""
SELECT CASE WHEN {HAS_SCHEMA} THEN t.revision END, count(*)
  FROM platform.tenant t
 WHERE (({HAS_SCHEMA}) OR t.status = 'provisioning') AND ($1::text[] IS NULL OR t.slug = ANY ($1))
 GROUP BY 1
"""  # noqa: S608 - a constant


class Fetch(Protocol):
    """Asks the database, and gives rows that can be unpacked: an asyncpg connection's `fetch`, say.

    So what the command asks on a connection of the driver's, without importing the ORM, and the API in a session
    (`tenantry.platform.rollouts.steering.fetch_in`) is one text.
    """

    async def __call__(self, query: str, /, *arguments: Any) -> Iterable[Any]: ...


class UnknownSlugError(LookupError):
    """Nobody has it; the text names the nearest ones."""


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


async def plan(fetch: Fetch, target: str | None = None, only: Sequence[str] | None = None) -> Plan:
    """What a rollout to `target` (by default the head) would do; nothing is written.

    Raises:
        UnknownRevisionError: the tree has no such revision.
        UnknownSlugError: `only` names a slug that nobody has.
    """
    target = target or head("tenant")
    older = older_revisions(target)
    if only is not None:
        await check_slugs(fetch, only)
    rows = await fetch(_COUNTS, None if only is None else list(only))
    counts: dict[str | None, int] = dict(rows)
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


async def check_slugs(fetch: Fetch, slugs: Sequence[str]) -> None:
    """Refuse slugs that nobody has.

    Raises:
        UnknownSlugError: naming each of them with the nearest ones.
    """
    known = {slug for (slug,) in await fetch("SELECT slug FROM platform.tenant WHERE status <> 'purged'")}
    complaints = []
    for number, slug in enumerate(slug for slug in dict.fromkeys(slugs) if slug not in known):
        # Comparing one with ten thousand keeps the event loop for a tenth of a second.
        near = difflib.get_close_matches(slug, sorted(known), n=3) if number < _HINTED else ()
        hint = f" ({', '.join(near)}?)" if near else ""
        complaints.append(f"there is no organization {slug!r}{hint}")
    if complaints:
        raise UnknownSlugError("; ".join(complaints))
