"""Resetting a password by mail. As in the sessions' service, no transaction is open while a password is hashed."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Select, func, select, update

from tenantry.domain.identity.enforcement import require_password_allowed, sso_refusal
from tenantry.domain.identity.links import find_tenant, paced, tenant_of_link
from tenantry.domain.identity.passwords.mails import PASSWORD_CHANGED_MAIL, PASSWORD_RESET_MAIL
from tenantry.domain.identity.passwords.models import PasswordReset
from tenantry.domain.identity.sessions.models import UserSession
from tenantry.domain.identity.users.models import User
from tenantry.events.record import SYSTEM, record_event, user_actor
from tenantry.kernel.errors import ClientException, PermissionDeniedException, define_problem
from tenantry.kernel.schema import normalize_email
from tenantry.kernel.security import PASSWORD_RESET, Credential
from tenantry.kernel.security.policy import check_new_password
from tenantry.mail.definition import require_mail

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.domain.identity.sessions.throttle import LoginThrottle
    from tenantry.kernel.security import PasswordHasher, Vault
    from tenantry.kernel.settings import Settings
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.registry import TenantRegistry

__all__ = ("PASSWORD_RESET_INVALID", "PasswordResets")

PASSWORD_RESET_INVALID = define_problem(
    "password-reset-invalid",
    400,
    "Password reset not valid",
    "The link was used already, has expired, or never was one. Ask for a new one.",
)

_BY_PROVIDER = (
    "People of this e-mail domain sign in by the organization's provider. Its owners are mailed a link all the same."
)


class PasswordResets:
    """Mails links, and trades them for passwords."""

    def __init__(
        self,
        *,
        database: Database,
        registry: TenantRegistry,
        hasher: PasswordHasher,
        settings: Settings,
        vault: Vault,
        throttle: LoginThrottle,
        log_ins: LoginThrottle,
    ) -> None:
        """`throttle` counts requests for a link, `log_ins` failed log-ins, which a new password forgets."""
        self._database = database
        self._registry = registry
        self._hasher = hasher
        self._settings = settings
        self._vault = vault
        self._throttle = throttle
        self._log_ins = log_ins

    async def request(self, slug: str, email: str) -> None:
        """Have a link mailed, if there is such an account, and its person has come. Who asks is not told.

        Raises:
            ValidationFailedException: it is no address at all.
            PermissionDeniedException: people of that domain sign in by a provider, whether or not there is an account.
                An owner is mailed a link all the same.
            UnavailableException: no mail is sent here, or the organization is at a revision that this release does not
                serve.
            TooManyRequestsException: too many were asked for of this account, whether or not there is one.
        """
        refusal = None
        async with paced():
            require_mail(self._settings)
            email = normalize_email(email)
            tenant = await find_tenant(self._registry, slug)
            await self._throttle.check(tenant, slug, email)
            await self._throttle.failed(tenant, slug, email)
            if tenant is not None:
                refusal = await self._write(tenant, email)
        if refusal is not None:
            raise refusal

    async def _write(self, tenant: TenantContext, email: str) -> PermissionDeniedException | None:
        """Have the mail sent, where there is one to send; what the asking is refused with, whoever has the address."""
        lifetime = datetime.timedelta(seconds=self._settings.password_reset_ttl)
        async with self._database.transaction(tenant.write_scope) as transaction:
            session = transaction.session
            # Without a password and unverified, they were invited and have not come yet; verified, they have come by a
            # provider, which may be gone.
            has_come = User.hashed_password.is_not(None) | User.is_verified
            user_id = await session.scalar(select(User.id).where(User.email == email, User.is_active, has_come))
            refusal = await sso_refusal(session, tenant, email, None, detail=_BY_PROVIDER)
            if (
                user_id is None
                or (refusal is not None and await sso_refusal(session, tenant, email, user_id) is not None)
                or await self._asked(session, user_id, lifetime) >= self._settings.password_reset_requests
            ):
                return refusal
            token, digest = Credential.new(PASSWORD_RESET, tenant.id)
            reset = PasswordReset(
                user_id=user_id, digest=digest, expires_at=datetime.datetime.now(datetime.UTC) + lifetime
            )
            session.add(reset)
            await session.flush()
            # Whoever has typed an address has proved nothing.
            await record_event(session, "user.password_reset_requested", subject=user_id, actor=SYSTEM)
            await PASSWORD_RESET_MAIL.send(session, about=reset.id, secret=token, vault=self._vault)
            return refusal

    @staticmethod
    async def _asked(session: AsyncSession, user_id: UUID, lifetime: datetime.timedelta) -> int:
        # The brake that holds while Redis is away: nobody's mailbox is to be filled by others.
        count = await session.scalar(
            select(func.count())
            .select_from(PasswordReset)
            .where(PasswordReset.user_id == user_id, PasswordReset.created_at > func.now() - lifetime)
        )
        return count or 0

    async def confirm(self, token: str, password: str, *, host_tenant: str | None) -> None:
        """Set a new password, end all sessions of the account, and have its person told.

        Raises:
            ClientException: the token is not valid.
            PermissionDeniedException: the organization is suspended, archived or gone, or wants its people to sign in
                by a provider.
            UnavailableException: it is at a revision that this release does not serve.
            ValidationFailedException: the password is too weak; the token stays good.
        """
        tenant, digest = tenant_of_link(
            self._registry, token, PASSWORD_RESET, host_tenant=host_tenant, problem=PASSWORD_RESET_INVALID
        )
        async with self._database.transaction(tenant.read_scope) as transaction:
            owner = await self._owner(transaction.session, digest)
            await require_password_allowed(transaction.session, tenant, owner.email, owner.id)
        check_new_password(self._settings, password, email=owner.email, organization=tenant.words, name=owner.name)
        hashed = await self._hasher.hash(password, key=tenant.id)
        async with self._database.transaction(tenant.write_scope) as transaction:
            session = transaction.session
            # The account's row is the lock: of two that come with two links, one finds its own used.
            await session.scalar(select(User.id).where(User.id == owner.id).with_for_update())
            await self._owner(session, digest)
            await self._replace(session, owner.id, hashed)
        await self._log_ins.succeeded(tenant, tenant.slug, owner.email)

    async def _replace(self, session: AsyncSession, user_id: UUID, hashed: str) -> None:
        now = datetime.datetime.now(datetime.UTC)
        await session.execute(
            update(User)
            .where(User.id == user_id)
            # Whoever has the link has read mail at the address.
            .values(hashed_password=hashed, is_verified=True, verified_at=func.coalesce(User.verified_at, now))
        )
        await session.execute(
            update(PasswordReset)
            .where(PasswordReset.user_id == user_id, PasswordReset.used_at.is_(None))
            .values(used_at=now)
        )
        await session.execute(
            update(UserSession)
            .where(UserSession.user_id == user_id, UserSession.revoked_at.is_(None))
            .values(revoked_at=now)
        )
        await record_event(session, "user.password_reset", subject=user_id, actor=user_actor(user_id))
        if self._settings.mail_url is not None:
            await PASSWORD_CHANGED_MAIL.send(session, about=user_id)

    @staticmethod
    async def _owner(session: AsyncSession, digest: bytes) -> User:
        user = await session.scalar(_valid(digest))
        if user is None:
            raise ClientException(problem=PASSWORD_RESET_INVALID)
        return user


def _valid(digest: bytes) -> Select[User]:
    return (
        select(User)
        .join(PasswordReset, PasswordReset.user_id == User.id)
        .where(
            PasswordReset.digest == digest,
            PasswordReset.used_at.is_(None),
            PasswordReset.expires_at > func.now(),
            User.is_active,
        )
    )
