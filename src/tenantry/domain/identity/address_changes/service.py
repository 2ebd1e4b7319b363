"""Moving an account to another address, once both have agreed."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Literal

from sqlalchemy import func, or_, select, text, update
from sqlalchemy.exc import IntegrityError

from tenantry.domain.identity.address_changes.mails import (
    EMAIL_CHANGE_NEW_MAIL,
    EMAIL_CHANGE_OLD_MAIL,
    EMAIL_CHANGED_MAIL,
)
from tenantry.domain.identity.address_changes.models import EmailChange
from tenantry.domain.identity.links import paced, tenant_of_link
from tenantry.domain.identity.sessions.models import UserSession
from tenantry.domain.identity.users.models import User
from tenantry.domain.identity.verification.mails import ACCOUNT_EXISTS_MAIL
from tenantry.events.record import record_event, user_actor
from tenantry.kernel.errors import (
    ClientException,
    NotAuthenticatedException,
    TooManyRequestsException,
    ValidationFailedException,
    define_problem,
)
from tenantry.kernel.schema import normalize_email
from tenantry.kernel.security import EMAIL_CHANGE, Credential, digest_matches
from tenantry.mail.definition import require_mail

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.domain.identity.sessions.confirmation import PasswordCheck
    from tenantry.domain.identity.sessions.throttle import LoginThrottle
    from tenantry.kernel.security import Vault
    from tenantry.kernel.settings import Settings
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.registry import TenantRegistry

__all__ = ("EMAIL_CHANGE_INVALID", "EmailChanges", "drop_pending", "pending_change")

EMAIL_CHANGE_INVALID = define_problem(
    "email-change-invalid",
    400,
    "Change of address not valid",
    "The link was used already, has expired, or never was one; or the change was cancelled, replaced by another, or "
    "cannot be carried out any more. Ask for it anew.",
)
_DAY = 86_400


class EmailChanges:
    """Asks both addresses, and moves the account when both have confirmed."""

    def __init__(
        self,
        *,
        database: Database,
        registry: TenantRegistry,
        settings: Settings,
        vault: Vault,
        password_check: PasswordCheck,
        throttle: LoginThrottle,
    ) -> None:
        """`throttle` counts the mails to one new address."""
        self._database = database
        self._registry = registry
        self._settings = settings
        self._vault = vault
        self._password_check = password_check
        self._throttle = throttle

    async def request(
        self, tenant: TenantContext, user_id: UUID, session_id: UUID, *, email: str, password: str
    ) -> EmailChange:
        """Mail links to both addresses; a change that was under way ends.

        Whether the new address has an account is not told: it is written to either way, in other words.

        Raises:
            ValidationFailedException: it is no address, or the present one, or the password is wrong.
            TooManyRequestsException: too many were asked for, or too many passwords were wrong.
            UnavailableException: no mail is sent here.
        """
        require_mail(self._settings)
        email = normalize_email(email)
        async with paced():
            await self._password_check.require(tenant, user_id, password, field="password")
            await self._throttle.check(tenant, tenant.slug, email)
            await self._throttle.failed(tenant, tenant.slug, email)
            async with self._database.transaction(tenant.write_scope) as transaction:
                return await self._open(transaction.session, tenant, user_id, session_id, email)

    async def _open(
        self, session: AsyncSession, tenant: TenantContext, user_id: UUID, session_id: UUID, email: str
    ) -> EmailChange:
        # The account's row is the lock: of two that are asked for at once, the later one stays.
        present = await session.scalar(select(User.email).where(User.id == user_id, User.is_active).with_for_update())
        if present is None:
            raise NotAuthenticatedException("The session has ended.", invalid_token=True)
        if present == email:
            raise ValidationFailedException.of("email", "Expected another address than the present one.")
        await self._require_few(session, user_id)
        await drop_pending(session, user_id, told=False)
        old_token, old_digest = Credential.new(EMAIL_CHANGE, tenant.id)
        new_token, new_digest = Credential.new(EMAIL_CHANGE, tenant.id)
        made = EmailChange(
            user_id=user_id,
            session_id=session_id,
            old_email=present,
            new_email=email,
            old_digest=old_digest,
            new_digest=new_digest,
            expires_at=_now() + datetime.timedelta(seconds=self._settings.email_change_ttl),
        )
        session.add(made)
        await session.flush()
        await record_event(session, "user.email_change_requested", subject=user_id)
        await EMAIL_CHANGE_OLD_MAIL.send(session, about=made.id, secret=old_token, vault=self._vault)
        holder = await session.scalar(select(User.id).where(User.email == email))
        if holder is None:
            await EMAIL_CHANGE_NEW_MAIL.send(session, about=made.id, secret=new_token, vault=self._vault)
        else:
            # Its owner is told, whoever has asked is not: the change will expire.
            await ACCOUNT_EXISTS_MAIL.send(session, about=holder)
        return made

    async def _require_few(self, session: AsyncSession, user_id: UUID) -> None:
        # The brake that holds while Redis is away, and for somebody who writes to one address after the other.
        since = func.now() - datetime.timedelta(seconds=_DAY)
        asked = await session.scalar(
            select(func.count())
            .select_from(EmailChange)
            .where(EmailChange.user_id == user_id, EmailChange.created_at > since)
        )
        if (asked or 0) >= self._settings.account_mails:
            raise TooManyRequestsException("Enough changes of address were asked for today.", retry_after=_DAY)

    async def confirm(self, token: str, *, host_tenant: str | None) -> Literal["pending", "changed"]:
        """Take one address's consent; with the other's, move the account and end its other sessions.

        Raises:
            ClientException: the token is not valid, or the new address has got an account meanwhile.
            PermissionDeniedException: the organization is suspended, archived or gone.
            UnavailableException: it is at a revision that this release does not serve.
        """
        tenant, digest = self._tenant(token, host_tenant)
        is_free = True
        async with self._database.transaction(tenant.write_scope) as transaction:
            session = transaction.session
            change = await _valid(session, digest)
            now = _now()
            if digest_matches(change.old_digest, digest):
                if change.old_confirmed_at is not None:
                    raise ClientException(problem=EMAIL_CHANGE_INVALID)
                change.old_confirmed_at = now
            else:
                if change.new_confirmed_at is not None:
                    raise ClientException(problem=EMAIL_CHANGE_INVALID)
                change.new_confirmed_at = now
            await session.flush()
            if change.old_confirmed_at is None or change.new_confirmed_at is None:
                return "pending"
            change.ended_at = now
            await session.flush()
            is_free = await _move(session, change)
            if is_free:
                await _settle(session, change)
        if not is_free:
            # Not before the transaction is over: the change has ended. Who has the address nobody says.
            raise ClientException(problem=EMAIL_CHANGE_INVALID)
        return "changed"

    async def cancel(self, token: str, *, host_tenant: str | None) -> None:
        """Let the account stay where it is, as whoever reads mail at either address wishes.

        Raises:
            ClientException, PermissionDeniedException, UnavailableException: as `confirm`.
        """
        tenant, digest = self._tenant(token, host_tenant)
        async with self._database.transaction(tenant.write_scope) as transaction:
            session = transaction.session
            change = await _valid(session, digest)
            change.ended_at = _now()
            await session.flush()
            # Whoever has the link: the new address's reader need not be the user.
            await record_event(session, "user.email_change_cancelled", subject=change.user_id)

    def _tenant(self, token: str, host_tenant: str | None) -> tuple[TenantContext, bytes]:
        return tenant_of_link(
            self._registry, token, EMAIL_CHANGE, host_tenant=host_tenant, problem=EMAIL_CHANGE_INVALID
        )


async def pending_change(session: AsyncSession, user_id: UUID) -> EmailChange | None:
    """The change that waits for the user's addresses to confirm it."""
    found: EmailChange | None = await session.scalar(
        select(EmailChange)
        .where(EmailChange.user_id == user_id, EmailChange.ended_at.is_(None), EmailChange.expires_at > func.now())
        .order_by(EmailChange.id.desc())
        .limit(1)
    )
    return found


async def drop_pending(session: AsyncSession, user_id: UUID, *, told: bool = True) -> None:
    """End the change that waits, if there is one; recorded, unless another takes its place."""
    dropped = await session.scalars(
        update(EmailChange)
        .where(EmailChange.user_id == user_id, EmailChange.ended_at.is_(None), EmailChange.expires_at > func.now())
        .values(ended_at=func.now())
        .returning(EmailChange.id)
        .execution_options(synchronize_session=False)
    )
    if dropped.all() and told:
        await record_event(session, "user.email_change_cancelled", subject=user_id)


async def _valid(session: AsyncSession, digest: bytes) -> EmailChange:
    is_of = or_(EmailChange.old_digest == digest, EmailChange.new_digest == digest)
    # The account's row first, as where a change begins: two that lock in another order would wait for each other.
    user = await session.scalar(
        select(User.email)
        .where(User.id == select(EmailChange.user_id).where(is_of).scalar_subquery(), User.is_active)
        .with_for_update()
    )
    found: EmailChange | None = await session.scalar(
        select(EmailChange).where(
            is_of,
            EmailChange.ended_at.is_(None),
            EmailChange.expires_at > func.now(),
            EmailChange.old_email == user,
        )
    )
    if found is None:
        raise ClientException(problem=EMAIL_CHANGE_INVALID)
    return found


async def _move(session: AsyncSession, change: EmailChange) -> bool:
    """Whether the account has the new address now; else somebody else has."""
    try:
        async with session.begin_nested():
            await session.execute(
                update(User)
                .where(User.id == change.user_id)
                .values(email=change.new_email, is_verified=True, verified_at=_now())
            )
    except IntegrityError:
        return False
    return True


async def _settle(session: AsyncSession, change: EmailChange) -> None:
    now = _now()
    others = [UserSession.user_id == change.user_id, UserSession.revoked_at.is_(None)]
    if change.session_id is not None:
        others.append(UserSession.id != change.session_id)
    await session.execute(update(UserSession).where(*others).values(revoked_at=now))
    await session.execute(_FORGET_RESETS, {"user_id": change.user_id})
    await record_event(session, "user.email_changed", subject=change.user_id, actor=user_actor(change.user_id))
    await EMAIL_CHANGED_MAIL.send(session, about=change.id)


# By table name: the passwords' package is this one's neighbour. Such a link lies in the mailbox that was left.
_FORGET_RESETS = text("UPDATE password_reset SET used_at = now() WHERE user_id = :user_id AND used_at IS NULL")


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
