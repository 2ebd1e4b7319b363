"""Which revisions of a tenant's schema this release can serve.

Ten thousand schemas are not migrated in one moment, nor are all processes of a deployment replaced in one: for a while
there are tenants before and after a revision, and processes of two releases. A release therefore serves a range of
revisions, and refuses the tenants outside of it, one by one: to serve them it would have to guess what their tables
look like.
"""

from __future__ import annotations

from dataclasses import dataclass

from tenantry.tenancy.revisions import UnknownRevisionError, revisions

__all__ = ("FOLLOWER", "OLDEST_SERVED", "ServedRange", "follower_name", "served_range", "served_revisions")

FOLLOWER = "tenantry-registry"
"""What the connection is called (`application_name`) over which a process follows the tenants; see `follower_name`."""

OLDEST_SERVED = "0017"
"""The oldest revision of the tenant tree that the code of this release works on; the newest is the tree's head.

It may be raised to what every tenant already has when the release is deployed, thus at most to the head of the release
before: docs/operations/upgrading.md, "Deploying a release".
"""


@dataclass(frozen=True, slots=True)
class ServedRange:
    """The revisions from `oldest` to `newest`, both included, in the tree's order."""

    revisions: tuple[str, ...]

    @property
    def oldest(self) -> str:
        return self.revisions[0]

    @property
    def newest(self) -> str:
        return self.revisions[-1]


def served_range() -> ServedRange:
    """What this release serves.

    Raises:
        UnknownRevisionError: `OLDEST_SERVED` is no revision of the tenant tree.
        RevisionError: the tree cannot be read.
    """
    line = [revision.id for revision in revisions("tenant")]
    if OLDEST_SERVED not in line:
        raise UnknownRevisionError(f"OLDEST_SERVED is {OLDEST_SERVED!r}, which is no revision of the tenant tree")
    return ServedRange(tuple(line[line.index(OLDEST_SERVED) :]))


def served_revisions() -> frozenset[str]:
    """The same, to look a tenant's revision up in.

    Raises:
        RevisionError: as `served_range`.
    """
    return frozenset(served_range().revisions)


def follower_name(newest: str) -> str:
    """The whole name: with the newest revision that the process serves, so that whoever migrates can see who would not.

    PostgreSQL shows it to everybody in `pg_stat_activity`, and keeps 63 bytes of it.
    """
    return f"{FOLLOWER}:{newest}"
