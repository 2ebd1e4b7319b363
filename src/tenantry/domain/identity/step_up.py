"""Acts for which a session alone is not enough: whoever is at an unlocked laptop has one.

    @post("/", guards=[requires_permission("organization:export"), requires_recent_authentication()])

A session remembers when its person last proved who they are (`user_session.authenticated_at`); log-in does, and so does
`POST /api/auth/step-up`. Machines have nothing to prove: what they may not do, `requires_person` says.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from tenantry.domain.identity.principal import UserPrincipal
from tenantry.kernel.errors import PermissionDeniedException, define_problem
from tenantry.tenancy.guards import OPERATOR_REFUSED, principal_of
from tenantry.tenancy.request import request_transaction

if TYPE_CHECKING:
    from uuid import UUID

    from litestar.connection import ASGIConnection
    from litestar.handlers import BaseRouteHandler
    from litestar.types import Guard
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ("STEP_UP_REQUIRED", "requires_recent_authentication", "step_up_methods")

STEP_UP_REQUIRED = define_problem(
    "step-up-required",
    403,
    "Prove again who you are",
    "This needs a log-in that is not older than `maxAge` seconds. Prove with one of `methods` who you are "
    "(POST /api/auth/step-up), then ask again; where there are none, log in anew.",
)

# By table names: the packages of both import this one.
_METHODS = text(
    "SELECT u.hashed_password IS NOT NULL AS password,"
    " EXISTS (SELECT FROM totp_factor f WHERE f.user_id = u.id AND f.confirmed_at IS NOT NULL) AS code,"
    " EXISTS (SELECT FROM passkey k WHERE k.user_id = u.id) AS passkey,"
    " EXISTS (SELECT FROM recovery_code c WHERE c.user_id = u.id AND c.used_at IS NULL) AS recovery_code"
    " FROM user_account u WHERE u.id = :user_id"
)


async def step_up_methods(session: AsyncSession, user_id: UUID) -> list[str]:
    """By what the user can prove who they are: `code`, `passkey`, `recoveryCode`; without a second factor, `password`.

    Where there is a second factor the password is not enough: with it and a session that they stole, somebody could
    take the factor away.
    """
    row = (await session.execute(_METHODS, {"user_id": user_id})).one()
    if not (row.code or row.passkey):
        return ["password"] if row.password else []
    return [
        name
        for name, there in (("code", row.code), ("passkey", row.passkey), ("recoveryCode", row.recovery_code))
        if there
    ]


def requires_recent_authentication(seconds: int | None = None) -> Guard:
    """Admit people who have proved who they are within the last `seconds`, by default TENANTRY_STEP_UP_AFTER.

    After the guards of permissions: who may not do it at all is not asked to prove anything.
    """

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        principal = principal_of(connection)
        if principal.api_key_id is not None:
            return
        if principal.operator_access_id is not None:
            raise PermissionDeniedException("An operator may not do this.", problem=OPERATOR_REFUSED)
        limit = connection.app.state.settings.step_up_after if seconds is None else seconds
        at = principal.authenticated_at if isinstance(principal, UserPrincipal) else None
        if at is not None and datetime.datetime.now(datetime.UTC) - at <= datetime.timedelta(seconds=limit):
            return
        session = await request_transaction(connection).session()
        raise PermissionDeniedException(
            "Prove again who you are.",
            problem=STEP_UP_REQUIRED,
            maxAge=limit,
            methods=await step_up_methods(session, principal.id),
        )

    # The documents and a test read it back.
    guard.recent_authentication = True  # type: ignore[attr-defined]
    return guard
