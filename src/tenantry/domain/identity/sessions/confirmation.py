"""The password once more: before somebody who is signed in changes what the account hangs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from tenantry.domain.identity.users.models import User
from tenantry.kernel.errors import ValidationFailedException

if TYPE_CHECKING:
    from uuid import UUID

    from tenantry.domain.identity.sessions.throttle import LoginThrottle
    from tenantry.kernel.security import PasswordHasher
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.database import Database

__all__ = ("PasswordCheck",)


class PasswordCheck:
    """Asks for the password of somebody who is signed in; a session that was left open is not the person."""

    def __init__(self, *, database: Database, hasher: PasswordHasher, throttle: LoginThrottle) -> None:
        """`throttle` counts wrong ones of each account, apart from log-ins: who has a session is not to guess on."""
        self._database = database
        self._hasher = hasher
        self._throttle = throttle

    async def require(self, tenant: TenantContext, user_id: UUID, password: str, *, field: str) -> str:
        """Check the password; the stored hash. No transaction may be open meanwhile.

        Raises:
            ValidationFailedException: it is wrong, or the account has none; naming `field`.
            TooManyRequestsException: too many were wrong.
            HasherBusy: too many are waiting to be hashed.
        """
        await self._throttle.check(tenant, tenant.slug, str(user_id))
        async with self._database.transaction(tenant.read_scope) as transaction:
            stored = await transaction.session.scalar(select(User.hashed_password).where(User.id == user_id))
        if not await self._hasher.verify(stored, password, key=tenant.id) or stored is None:
            await self._throttle.failed(tenant, tenant.slug, str(user_id))
            raise ValidationFailedException.of(field, "Expected your present password.")
        await self._throttle.succeeded(tenant, tenant.slug, str(user_id))
        return stored
