"""Signing in, staying signed in, signing out.

Here the transactions are short and their own: hashing a password takes a tenth of a second, and a transaction that
was open meanwhile would hold a connection, so that a flood of log-ins starved everybody else.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import ColumnElement, and_, func, or_, select, text, update
from uuid_utils.compat import uuid7

from tenantry.domain.identity.account_policy.service import require_verified
from tenantry.domain.identity.enforcement import require_password_allowed
from tenantry.domain.identity.enrolment import find_enrol_by
from tenantry.domain.identity.sessions.client import LONGEST, Client
from tenantry.domain.identity.sessions.devices import device_digest, find_device, recognize
from tenantry.domain.identity.sessions.mails import NEW_DEVICE_MAIL, SESSION_STOLEN_MAIL
from tenantry.domain.identity.sessions.models import SpentRefreshToken, UserSession
from tenantry.domain.identity.users.models import User
from tenantry.domain.identity.users.service import UserService
from tenantry.events.record import SYSTEM, record_event, user_actor
from tenantry.kernel.errors import NotAuthenticatedException, ResourceNotFoundException
from tenantry.kernel.schema import normalize_email
from tenantry.kernel.security import (
    AUDIENCE_TENANT,
    REFRESH,
    Credential,
    InvalidCredential,
    PasswordHasher,
    Tokens,
)
from tenantry.kernel.service import Service
from tenantry.tenancy.request import require_active, require_served
from tenantry.tenancy.scope import EMPTY_SCOPE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.domain.identity.sessions.guessing import LoginGuard
    from tenantry.kernel.settings import Settings
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.registry import TenantRegistry

__all__ = (
    "Authenticator",
    "Issued",
    "SecondFactorGate",
    "UserSessionService",
    "end_everybodys",
    "is_open",
    "read_last_activity",
)

_WRONG = "The organization, the e-mail address or the password is wrong."
_ENDED = "The refresh token is not valid."
# The states in which an organization's accounts can be asked for.
_HAS_ACCOUNTS = frozenset({"active", "suspended"})


class UserSessionService(Service[UserSession]):
    """The signed-in devices of one organization."""

    class Repo(SQLAlchemyAsyncRepository[UserSession]):
        model_type = UserSession

    repository_type = Repo

    async def revoke(self, session_id: UUID) -> None:
        """End one session; its access tokens are refused from the next request on."""
        session = self.repository.session
        user_id = await session.scalar(
            update(UserSession)
            .where(UserSession.id == session_id, UserSession.revoked_at.is_(None))
            .values(revoked_at=func.now())
            .returning(UserSession.user_id)
        )
        if user_id is not None:
            await record_event(session, "session.ended", subject=session_id, payload={"user_id": user_id})

    async def end(self, user_id: UUID, session_id: UUID) -> None:
        """End one of a user's sessions that is open.

        Raises:
            ResourceNotFoundException: there is none, it has ended, or it is somebody else's.
        """
        found = await self.repository.session.scalar(
            select(UserSession.id).where(UserSession.id == session_id, UserSession.user_id == user_id, is_open())
        )
        if found is None:
            raise ResourceNotFoundException("There is no such session.")
        await self.revoke(session_id)

    async def end_all(self, user_id: UUID, *, but: UUID | None = None) -> int:
        """End all of a user's sessions, but one if it is named; how many there were."""
        session = self.repository.session
        ended = (
            await session.scalars(
                update(UserSession)
                .where(UserSession.user_id == user_id, is_open(), *([UserSession.id != but] if but else []))
                .values(revoked_at=func.now())
                .returning(UserSession.id),
                execution_options={"synchronize_session": False},
            )
        ).all()
        if ended:
            # One event, however many there were: whoever logs in in a loop is not to fill the trail with one call.
            await record_event(session, "user.sessions_ended", subject=user_id, payload={"sessions": len(ended)})
        return len(ended)


def is_open() -> ColumnElement[bool]:
    """Of sessions whose tokens are good."""
    return and_(UserSession.revoked_at.is_(None), UserSession.expires_at > func.now())


@dataclass(frozen=True, slots=True)
class Issued:
    """A fresh pair of tokens; `expires_in` is the access token's life in seconds."""

    access_token: str
    refresh_token: str
    expires_in: int
    tenant_id: UUID
    device_token: str | None = None
    """By which the device is known again, where it has asked for one."""
    enrol_by: datetime.datetime | None = None
    """When the session is good for nothing but setting a second factor up; None where that is not asked for."""


class SecondFactorGate(Protocol):
    """What stands between a right password and a session."""

    async def challenge(
        self, session: AsyncSession, tenant: TenantContext, user_id: UUID
    ) -> NotAuthenticatedException | None:
        """The refusal that asks for the account's second factor, or None where it has none.

        Raises:
            TooManyRequestsException: too many wrong ones were given on this account today.
        """


class Authenticator:
    """Trades passwords and refresh tokens for tokens."""

    def __init__(
        self,
        *,
        database: Database,
        registry: TenantRegistry,
        tokens: Tokens,
        hasher: PasswordHasher,
        settings: Settings,
        throttle: LoginGuard,
        second_factor: SecondFactorGate | None = None,
    ) -> None:
        self._second_factor = second_factor
        self._database = database
        self._registry = registry
        self._tokens = tokens
        self._hasher = hasher
        self._settings = settings
        self._throttle = throttle

    async def log_in(self, slug: str, email: str, password: str, *, client: Client) -> Issued:
        """Sign in with a password.

        An organization that does not exist, an unknown address and a wrong password are answered alike and take
        alike: each costs one short transaction and one verification of a hash.

        Raises:
            NotAuthenticatedException: any of these; or all is right, and the account has a second factor, for which the
                problem `second-factor-required` has a challenge.
            PermissionDeniedException: right, but the organization is suspended, asks for a confirmed address, or wants
                its people to sign in by a provider.
            UnavailableException: the organization is at a revision that this release does not serve.
            TooManyRequestsException: too many have failed on this account, or from the client's address.
        """
        email = normalize_email(email)
        tenant = await self._registry.find_slug(slug)
        if tenant is not None and tenant.status == "provisioning":
            # Seen while it was being made; whoever was just told that it is ready is not to be refused.
            await self._registry.refresh()
            tenant = self._registry.by_slug(slug)
        if tenant is not None and tenant.status not in _HAS_ACCOUNTS:
            # As unknown as one that never was: a count of failures in its name would outlive its purge.
            tenant = None
        if tenant is not None:
            # Before the password, although a stranger thereby learns that the organization exists: its accounts
            # cannot be read, and whoever has the right password is not to be told that it is wrong.
            require_served(tenant)
        attempt = await self._throttle.begin(
            tenant, slug, email, address=client.address, known_device=self.known_device(tenant, email, client)
        )
        try:
            user = await self._credentials(tenant, email)
            stored = user.hashed_password if user is not None else None
            # What strangers ask of organizations that do not exist is on one account, whatever names they think up.
            matches = await self._hasher.verify(stored, password, key=tenant.id if tenant is not None else None)
        except Exception:
            # Too many at once, or the database is away: it was no guess.
            await self._throttle.withdraw(attempt)
            raise
        if tenant is None or user is None or stored is None or not matches or not user.is_active:
            raise NotAuthenticatedException(_WRONG)
        try:
            admitted = await self._admit(tenant, user.id, email, password, stored=stored, client=client)
        except Exception:
            # The password was right, and whatever else was wrong was no guess.
            await self._throttle.withdraw(attempt)
            raise
        if isinstance(admitted, NotAuthenticatedException):
            # The failures before it are not forgotten yet: whoever has the password could guess codes for ever, by
            # beginning anew before each would-be last one.
            await self._throttle.withdraw(attempt)
            raise admitted
        await self._throttle.succeeded(tenant, slug, email, attempt=attempt)
        return admitted

    async def _admit(
        self, tenant: TenantContext, user_id: UUID, email: str, password: str, *, stored: str, client: Client
    ) -> Issued | NotAuthenticatedException:
        """Sign in whoever has the right password; or, to be raised once the challenge is kept, ask for their factor."""
        require_active(tenant)
        renewed = stored
        if self._hasher.needs_rehash(stored):
            renewed = await self._hasher.hash(password, key=tenant.id)
        async with self._database.transaction(tenant.write_scope) as transaction:
            session = transaction.session
            # What was true before the hash was verified need not be true now: the row is asked again, by writing it.
            signed_in = await session.scalar(
                update(User)
                .where(User.id == user_id, User.is_active, User.hashed_password == stored)
                .values(last_login_at=func.now(), hashed_password=renewed)
                .returning(User.id)
            )
            if signed_in is None:
                raise NotAuthenticatedException(_WRONG)
            await require_password_allowed(session, tenant, email, user_id)
            if self._second_factor is not None:
                challenge = await self._second_factor.challenge(session, tenant, user_id)
                if challenge is not None:
                    return challenge
            return await self.open_session(session, tenant, user_id, client=client)

    def known_device(
        self, tenant: TenantContext | None, email: str, client: Client
    ) -> Callable[[], Awaitable[str | None]] | None:
        """How to ask for the device whose token the client has sent, for the brake; None where it has sent none."""
        if tenant is None or (digest := device_digest(client, tenant.id)) is None:
            return None

        async def ask() -> str | None:
            async with self._database.transaction(tenant.read_scope) as transaction:
                found = await find_device(transaction.session, email, digest)
            return str(found) if found is not None else None

        return ask

    async def refresh(self, refresh_token: str, *, host_tenant: str | None, client: Client | None = None) -> Issued:
        """Trade a refresh token for a new pair; the old one is spent (RFC 9700 §4.14.2).

        A token that was spent before is a sign of theft: its whole session ends.

        Raises:
            NotAuthenticatedException: it is not valid, or was spent.
            PermissionDeniedException: the organization is suspended.
            UnavailableException: it is at a revision that this release does not serve.
        """
        try:
            parsed = Credential.parse(refresh_token, REFRESH)
        except InvalidCredential as error:
            raise NotAuthenticatedException(_ENDED) from error
        tenant = self._registry.by_id(parsed.tenant_id)
        if tenant is None or (host_tenant is not None and host_tenant != tenant.slug):
            raise NotAuthenticatedException(_ENDED)
        require_active(tenant)
        stolen = False
        issued: Issued | None = None
        async with self._database.transaction(tenant.write_scope) as transaction:
            session = transaction.session
            found = await session.scalar(
                select(UserSession)
                .join(User, User.id == UserSession.user_id)
                .where(
                    or_(
                        UserSession.refresh_digest == parsed.digest,
                        UserSession.id.in_(
                            select(SpentRefreshToken.session_id).where(SpentRefreshToken.digest == parsed.digest)
                        ),
                    ),
                    UserSession.revoked_at.is_(None),
                    UserSession.expires_at > func.now(),
                    User.is_active,
                )
                .with_for_update(of=UserSession)
            )
            if found is not None and found.refresh_digest != parsed.digest:
                found.revoked_at = datetime.datetime.now(datetime.UTC)
                stolen = True
                # Whoever has used it: not the user, for all that is known.
                await record_event(
                    session, "session.revoked", subject=found.id, payload={"user_id": found.user_id}, actor=SYSTEM
                )
                if self._settings.mail_url is not None:
                    await SESSION_STOLEN_MAIL.send(session, about=found.id)
            elif found is not None:
                session.add(SpentRefreshToken(session_id=found.id, digest=found.refresh_digest))
                if client is not None and str(client.address):
                    found.address = str(client.address)
                # Anew: a session that was opened while the organization's rules changed may have missed them.
                found.enrol_by = await find_enrol_by(session, found.user_id)
                issued = self._rotate(found, tenant)
        if issued is None or stolen:
            raise NotAuthenticatedException(_ENDED)
        return issued

    async def _credentials(self, tenant: TenantContext | None, email: str) -> User | None:
        if tenant is None:
            # As many round trips as for a tenant that exists.
            async with self._database.transaction(EMPTY_SCOPE) as transaction:
                await transaction.session.execute(text("SELECT 1"))
            return None
        async with self._database.transaction(tenant.read_scope) as transaction:
            return await UserService(session=transaction.session).credentials(email)

    async def open_session(
        self, session: AsyncSession, tenant: TenantContext, user_id: UUID, *, client: Client
    ) -> Issued:
        """Sign a user in within the caller's transaction, who has seen to the evidence.

        Somebody who has logged in before, on other devices, is told of this one by mail.
        Raises:
            PermissionDeniedException: their address is not confirmed, and the organization asks for it.
        """
        await require_verified(session, user_id)
        now = datetime.datetime.now(datetime.UTC)
        device = await recognize(session, tenant, user_id, client)
        opened = UserSession(
            id=uuid7(),
            user_id=user_id,
            user_agent=client.user_agent[:LONGEST] if client.user_agent else None,
            device=client.device,
            address=str(client.address) or None,
            expires_at=now,
            last_used_at=now,
            authenticated_at=now,
            enrol_by=await find_enrol_by(session, user_id),
            refresh_digest=b"",
        )
        issued = replace(self._rotate(opened, tenant), device_token=device.token)
        session.add(opened)
        await session.flush()
        if device.is_new and self._settings.mail_url is not None:
            await NEW_DEVICE_MAIL.send(session, about=opened.id)
        await record_event(
            session, "session.opened", subject=opened.id, payload={"user_id": user_id}, actor=user_actor(user_id)
        )
        return issued

    def _rotate(self, session: UserSession, tenant: TenantContext) -> Issued:
        text_, digest = Credential.new(REFRESH, tenant.id)
        now = datetime.datetime.now(datetime.UTC)
        session.refresh_digest = digest
        session.last_used_at = now
        session.expires_at = now + datetime.timedelta(seconds=self._settings.refresh_token_ttl)
        access, _ = self._tokens.issue(
            audience=AUDIENCE_TENANT,
            sub=session.user_id,
            ttl=self._settings.access_token_ttl,
            tid=tenant.id,
            sid=session.id,
        )
        return Issued(
            access_token=access,
            refresh_token=text_,
            expires_in=self._settings.access_token_ttl,
            tenant_id=tenant.id,
            enrol_by=session.enrol_by,
        )


async def end_everybodys(session: AsyncSession) -> None:
    """End every session of the organization. For rows of the past: some of these were ended since, and by whom?"""
    await session.execute(update(UserSession).where(is_open()).values(revoked_at=func.now()))


async def read_last_activity(session: AsyncSession) -> Mapping[str, Any]:
    """When somebody of the organization last logged in or renewed their session, for the platform's operators."""
    return {"last_activity_at": await session.scalar(select(func.max(UserSession.last_used_at)))}
