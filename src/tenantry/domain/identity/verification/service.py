"""Confirming that whoever has an account reads mail at its address."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Select, func, select, update

from tenantry.domain.identity.links import find_tenant, paced, tenant_of_link
from tenantry.domain.identity.users.models import User
from tenantry.domain.identity.verification.mails import VERIFY_EMAIL_MAIL
from tenantry.domain.identity.verification.models import EmailVerification
from tenantry.events.record import SYSTEM, record_event, user_actor
from tenantry.kernel.errors import ClientException, define_problem
from tenantry.kernel.schema import normalize_email
from tenantry.kernel.security import EMAIL_VERIFICATION, Credential
from tenantry.mail.definition import require_mail

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.domain.identity.sessions.throttle import LoginThrottle
    from tenantry.kernel.security import Vault
    from tenantry.kernel.settings import Settings
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.registry import TenantRegistry

__all__ = ("EMAIL_VERIFICATION_INVALID", "EmailVerifications", "send_verification")

EMAIL_VERIFICATION_INVALID = define_problem(
    "email-verification-invalid",
    400,
    "Link not valid",
    "The link was used already, has expired, never was one, or is for an address that the account has no more. Ask for "
    "a new one.",
)


class EmailVerifications:
    """Mails links, and takes them back as proofs."""

    def __init__(
        self,
        *,
        database: Database,
        registry: TenantRegistry,
        settings: Settings,
        vault: Vault,
        throttle: LoginThrottle,
    ) -> None:
        """`throttle` counts the mails to one address."""
        self._database = database
        self._registry = registry
        self._settings = settings
        self._vault = vault
        self._throttle = throttle

    async def request(self, slug: str, email: str) -> None:
        """Have a link mailed, if there is such an account and its address is not confirmed. Who asks is not told.

        Raises:
            ValidationFailedException: it is no address at all.
            UnavailableException: no mail is sent here, or the organization is at a revision that this release does not
                serve.
            TooManyRequestsException: too many were asked for of this address, whether or not it has an account.
        """
        async with paced():
            require_mail(self._settings)
            email = normalize_email(email)
            tenant = await find_tenant(self._registry, slug)
            await self._throttle.check(tenant, slug, email)
            await self._throttle.failed(tenant, slug, email)
            if tenant is None:
                return
            async with self._database.transaction(tenant.write_scope) as transaction:
                session = transaction.session
                user_id = await session.scalar(
                    select(User.id).where(User.email == email, User.is_active, User.is_verified.is_(False))
                )
                if user_id is not None:
                    # Whoever has typed an address has proved nothing.
                    await send_verification(
                        session, tenant, user_id, email, settings=self._settings, vault=self._vault, actor=SYSTEM
                    )

    async def request_own(self, tenant: TenantContext, user_id: UUID) -> None:
        """Have a link mailed to the caller, unless their address is confirmed already.

        Raises:
            UnavailableException: no mail is sent here.
            TooManyRequestsException: too many were asked for.
        """
        require_mail(self._settings)
        async with self._database.transaction(tenant.read_scope) as transaction:
            email = await transaction.session.scalar(
                select(User.email).where(User.id == user_id, User.is_verified.is_(False))
            )
        if email is None:
            return
        await self._throttle.check(tenant, tenant.slug, email)
        await self._throttle.failed(tenant, tenant.slug, email)
        async with self._database.transaction(tenant.write_scope) as transaction:
            await send_verification(
                transaction.session, tenant, user_id, email, settings=self._settings, vault=self._vault
            )

    async def confirm(self, token: str, *, host_tenant: str | None) -> None:
        """Take the address of the account for confirmed.

        Raises:
            ClientException: the token is not valid.
            PermissionDeniedException: the organization is suspended, archived or gone.
            UnavailableException: it is at a revision that this release does not serve.
        """
        tenant, digest = tenant_of_link(
            self._registry, token, EMAIL_VERIFICATION, host_tenant=host_tenant, problem=EMAIL_VERIFICATION_INVALID
        )
        async with self._database.transaction(tenant.write_scope) as transaction:
            session = transaction.session
            # The account's row is the lock: of two who come with one link, the second finds it used.
            owner = select(EmailVerification.user_id).where(EmailVerification.digest == digest).scalar_subquery()
            user = (
                await session.execute(
                    select(User.id, User.email).where(User.id == owner, User.is_active).with_for_update()
                )
            ).one_or_none()
            if user is None or await session.scalar(_valid(digest, user.email)) is None:
                raise ClientException(problem=EMAIL_VERIFICATION_INVALID)
            user_id = user.id
            now = datetime.datetime.now(datetime.UTC)
            await session.execute(
                update(User)
                .where(User.id == user_id)
                .values(is_verified=True, verified_at=func.coalesce(User.verified_at, now))
            )
            await session.execute(
                update(EmailVerification)
                .where(EmailVerification.user_id == user_id, EmailVerification.used_at.is_(None))
                .values(used_at=now)
            )
            await record_event(session, "user.email_verified", subject=user_id, actor=user_actor(user_id))


def _valid(digest: bytes, email: str) -> Select[UUID]:
    return select(EmailVerification.id).where(
        EmailVerification.digest == digest,
        EmailVerification.email == email,
        EmailVerification.used_at.is_(None),
        EmailVerification.expires_at > func.now(),
    )


async def send_verification(
    session: AsyncSession,
    tenant: TenantContext,
    user_id: UUID,
    email: str,
    *,
    settings: Settings,
    vault: Vault,
    actor: str | None = None,
) -> None:
    """Mail a link to the address of an account, unless enough were mailed to it today.

    Raises:
        VaultError: the vault cannot be opened.
    """
    # The brake that holds while Redis is away: nobody's mailbox is to be filled by others.
    sent = await session.scalar(
        select(func.count())
        .select_from(EmailVerification)
        .where(
            EmailVerification.user_id == user_id,
            EmailVerification.created_at > func.now() - datetime.timedelta(days=1),
        )
    )
    if (sent or 0) >= settings.account_mails:
        return
    token, digest = Credential.new(EMAIL_VERIFICATION, tenant.id)
    made = EmailVerification(
        user_id=user_id,
        email=email,
        digest=digest,
        expires_at=datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=settings.email_verification_ttl),
    )
    session.add(made)
    await session.flush()
    await record_event(session, "user.email_verification_requested", subject=user_id, actor=actor)
    await VERIFY_EMAIL_MAIL.send(session, about=made.id, secret=token, vault=vault)
