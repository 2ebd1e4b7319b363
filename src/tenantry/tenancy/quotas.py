"""Asking whether there may be more of something, in the transaction that makes it.

Whoever makes more of what is counted counts under a lock, since two who counted at once would both find room for one.
The lock is a row of the tenant's own, one for each quota, which everybody who counts rewrites: it is theirs until their
transaction ends. A count taken by the statement that waited for the lock would still be that of its beginning, from
before the other's commit. So the row has a version: where it is what the statement saw at its beginning, nobody was
in between, and the count holds; else, and only then, it is taken again.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import BigInteger, Text, UniqueConstraint, bindparam, case, func, literal, select, true
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from tenantry.kernel.errors import PermissionDeniedException, define_problem
from tenantry.tenancy.entitlements import current_entitlements
from tenantry.tenancy.models import TenantRecord, length_check

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.kernel.feature import Quota

__all__ = ("QUOTA_EXCEEDED", "QuotaLock", "read_use", "use_quota")

QUOTA_EXCEEDED = define_problem(
    "quota-exceeded",
    403,
    "No more in this plan",
    "The organization has as much of `quota` as its plan allows: `used` of `allowed`. Make room, or have the plan or "
    "the limit changed. What is there stays, also where it is more than that.",
)


class QuotaLock(TenantRecord):
    """Held by whoever makes more of what a quota counts, until their transaction ends."""

    __tablename__ = "quota_lock"
    __table_args__ = (
        UniqueConstraint("name", name="uq_quota_lock_name"),
        length_check("name", 100, minimum=1),
        # In a copy of the organization nobody holds anything.
        {"info": {"secret": True}},
    )

    name: Mapped[str] = mapped_column(Text)
    version: Mapped[int] = mapped_column(BigInteger)


class _Found(NamedTuple):
    allowed: int | None
    used: int | None
    is_exact: bool | None


async def use_quota(session: AsyncSession, name: str, amount: int = 1) -> None:
    """Make sure that there may be `amount` more of something: until the transaction ends, nobody else takes the place.

    To be called before it is written, and after those rows are locked that have to be: what the session holds and has
    not flushed is not counted, so `amount` has to be all of it. It is one statement, two where somebody
    else was there at the same moment; the limit is read in it, so that one that was changed a moment ago counts.

    Args:
        session: in the tenant's scope, and not read-only.
        name: of a quota that a manifest declares (`Feature.quotas`).
        amount: in the quota's unit.

    Raises:
        LookupError: no manifest declares it.
        PermissionDeniedException: the plan allows no more (`quota-exceeded`).
        sqlalchemy.exc.DBAPIError: the scope is no tenant's, or the database is away.
    """
    quota = current_entitlements().quota(name)
    row = (await session.execute(_statement(quota), {"name": name, "lock_id": uuid7()})).one()
    found = _Found(*row)
    if found.allowed is None:
        return
    used: int = found.used or 0
    if not found.is_exact:
        used = (await session.execute(quota.count)).scalar_one()
    if used + amount > found.allowed:
        raise PermissionDeniedException(
            f"The plan allows {found.allowed} of {name}, and there are {used}.",
            problem=QUOTA_EXCEEDED,
            quota=name,
            used=used,
            allowed=found.allowed,
        )


async def read_use(session: AsyncSession) -> Mapping[str, int]:
    """How much there is of everything that is counted, by the quotas' names: one statement.

    `session` is in the tenant's scope.
    """
    quotas = current_entitlements().quotas
    if not quotas:
        return {}
    row = (await session.execute(_all_counts(tuple(quotas.values())))).one()
    return {name: int(used or 0) for name, used in zip(quotas, row, strict=True)}


@lru_cache(maxsize=256)
def _statement(quota: Quota) -> Select[Any]:
    """What is allowed; how much there is, under the lock; and whether that was counted after the last one's commit."""
    name = bindparam("name", type_=Text)
    allowed = (
        select(func.platform.own_quota(name, type_=BigInteger).label("allowed")).cte("own").prefix_with("MATERIALIZED")
    )
    taking = insert(QuotaLock).from_select(
        ["id", "name", "version"],
        select(bindparam("lock_id", type_=QuotaLock.id.type), name, literal(1, BigInteger)).where(
            allowed.c.allowed.is_not(None)
        ),
        include_defaults=False,
    )
    held = (
        taking.on_conflict_do_update(constraint="uq_quota_lock_name", set_={"version": QuotaLock.version + 1})
        .returning(QuotaLock.version.label("version"))
        .cte("held")
    )
    # By the snapshot of the statement, as is the count: what the lock's holder before has changed is not in it.
    seen = select(func.coalesce(func.max(QuotaLock.version), 0)).where(QuotaLock.name == name).scalar_subquery()
    return select(
        allowed.c.allowed,
        case((allowed.c.allowed.is_not(None), quota.count.scalar_subquery())),
        held.c.version == seen + 1,
    ).select_from(allowed.outerjoin(held, true()))


@lru_cache(maxsize=8)
def _all_counts(quotas: tuple[Quota, ...]) -> Select[Any]:
    return select(*(quota.count.scalar_subquery().label(quota.name) for quota in quotas))
