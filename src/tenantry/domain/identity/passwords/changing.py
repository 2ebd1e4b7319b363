"""Changing one's own password; as in the sessions' service, no transaction is open while one is hashed."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from tenantry.domain.identity.enforcement import require_password_allowed
from tenantry.domain.identity.passwords.mails import PASSWORD_REPLACED_MAIL
from tenantry.domain.identity.passwords.models import PasswordReset
from tenantry.domain.identity.sessions.models import UserSession
from tenantry.domain.identity.users.models import User
from tenantry.events.record import record_event
from tenantry.kernel.errors import ConflictException, define_problem
from tenantry.kernel.security.policy import check_new_password

if TYPE_CHECKING:
    from uuid import UUID

    from tenantry.domain.identity.sessions.confirmation import PasswordCheck
    from tenantry.kernel.security import PasswordHasher
    from tenantry.kernel.settings import Settings
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.database import Database

__all__ = ("PasswordChanges",)

PASSWORD_CHANGED_MEANWHILE = define_problem(
    "password-changed-meanwhile",
    409,
    "The password was changed meanwhile",
    "Somebody, on another device perhaps, has set another password at the same moment. Log in with that one.",
)


class PasswordChanges:
    """Trades the old password for a new one."""

    def __init__(
        self, *, database: Database, hasher: PasswordHasher, settings: Settings, password_check: PasswordCheck
    ) -> None:
        self._database = database
        self._hasher = hasher
        self._settings = settings
        self._password_check = password_check

    async def change(
        self, tenant: TenantContext, user_id: UUID, session_id: UUID, *, old_password: str, new_password: str
    ) -> None:
        """Set a new password, end the user's other sessions and mailed resets, and have them told.

        Raises:
            ValidationFailedException: the old one is wrong, or the new one too weak.
            TooManyRequestsException: too many old ones were wrong.
            PermissionDeniedException: the organization wants them to sign in by a provider.
            ConflictException: it was changed by somebody else at the same moment.
        """
        async with self._database.transaction(tenant.read_scope) as transaction:
            person = (await transaction.session.execute(select(User.email, User.name).where(User.id == user_id))).one()
            await require_password_allowed(transaction.session, tenant, person.email, user_id)
        check_new_password(
            self._settings,
            new_password,
            email=person.email,
            organization=tenant.words,
            name=person.name,
            field="newPassword",
        )
        stored = await self._password_check.require(tenant, user_id, old_password, field="oldPassword")
        hashed = await self._hasher.hash(new_password, key=tenant.id)
        now = datetime.datetime.now(datetime.UTC)
        async with self._database.transaction(tenant.write_scope) as transaction:
            session = transaction.session
            replaced = await session.scalar(
                update(User)
                .where(User.id == user_id, User.hashed_password == stored)
                .values(hashed_password=hashed)
                .returning(User.id)
            )
            if replaced is None:
                raise ConflictException("The password was changed meanwhile.", problem=PASSWORD_CHANGED_MEANWHILE)
            await session.execute(
                update(UserSession)
                .where(UserSession.user_id == user_id, UserSession.id != session_id, UserSession.revoked_at.is_(None))
                .values(revoked_at=now)
            )
            await session.execute(
                update(PasswordReset)
                .where(PasswordReset.user_id == user_id, PasswordReset.used_at.is_(None))
                .values(used_at=now)
            )
            await record_event(session, "user.password_changed", subject=user_id)
            if self._settings.mail_url is not None:
                await PASSWORD_REPLACED_MAIL.send(session, about=user_id)
