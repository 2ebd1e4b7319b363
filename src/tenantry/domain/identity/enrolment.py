"""Who has to set a second factor up, and by when.

The organization's rule and what a person has are rows of the package `factors`. Every request would have to read both,
so what follows from them is kept in the session's row, which every request reads anyway: `enrol_by`, computed when the
session is opened or renewed, and written anew whenever the rule or what a person has changes.

By table names: packages far below `factors` ask, and the sessions' own does not know it either.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, NoReturn

from sqlalchemy import text

from tenantry.kernel.errors import PermissionDeniedException, define_problem

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = (
    "ENROLMENT",
    "ENROLMENT_REQUIRED",
    "find_enrol_by",
    "read_standing",
    "refuse_but_enrolment",
    "renew_enrolment",
)

ENROLMENT = "second_factor_enrolment"
"""The `opt` of routes that are open to somebody who has to set a second factor up first."""

ENROLMENT_REQUIRED = define_problem(
    "second-factor-enrolment-required",
    403,
    "Set a second factor up first",
    "The organization asks everybody for a second factor, the time to set one up is over, and the caller has none. "
    "Until they do, they may log out, see themselves, and use the routes under /api/second-factor.",
)

_HAS_FACTOR = (
    "(EXISTS (SELECT FROM totp_factor f WHERE f.user_id = u.id AND f.confirmed_at IS NOT NULL)"
    " OR EXISTS (SELECT FROM passkey k WHERE k.user_id = u.id))"
)
# Whoever came later has as long as everybody had when the rule was made.
_DEADLINE = "greatest(p.required_since, u.joined_at) + make_interval(days => p.grace_days)"

_STANDING = text(
    f"SELECT {_HAS_FACTOR} AS has_factor,"  # noqa: S608 - of constants
    f" (SELECT {_DEADLINE} FROM security_policy p WHERE p.required_since IS NOT NULL) AS deadline"
    " FROM user_account u WHERE u.id = :user_id"
)
_RENEW = (
    "UPDATE user_session s SET enrol_by ="  # noqa: S608 - of constants
    f" CASE WHEN NOT {_HAS_FACTOR}"
    f" THEN (SELECT {_DEADLINE} FROM security_policy p WHERE p.required_since IS NOT NULL) END"
    " FROM user_account u WHERE u.id = s.user_id AND s.revoked_at IS NULL AND s.expires_at > now()"
)
_RENEW_ALL = text(_RENEW)
_RENEW_ONE = text(f"{_RENEW} AND s.user_id = :user_id")


def refuse_but_enrolment() -> NoReturn:
    """Refuse whatever does not set a second factor up.

    Raises:
        PermissionDeniedException: always.
    """
    raise PermissionDeniedException("Set a second factor up first.", problem=ENROLMENT_REQUIRED)


async def read_standing(session: AsyncSession, user_id: UUID) -> tuple[bool, datetime.datetime | None]:
    """Whether the user has a second factor, and by when they have to; None where they need not, or have one."""
    row = (await session.execute(_STANDING, {"user_id": user_id})).one()
    return row.has_factor, None if row.has_factor else row.deadline


async def find_enrol_by(session: AsyncSession, user_id: UUID) -> datetime.datetime | None:
    """By when the user has to set a second factor up; None where they need not."""
    _, enrol_by = await read_standing(session, user_id)
    return enrol_by


async def renew_enrolment(session: AsyncSession, user_id: UUID | None = None) -> None:
    """Write anew by when the sessions of a user, or of everybody, have to; counts with their next request."""
    if user_id is None:
        await session.execute(_RENEW_ALL)
    else:
        await session.execute(_RENEW_ONE, {"user_id": user_id})
