"""Proving who one is with a factor: after a password, without one, and again within a session.

Here the transactions are the desk's own: a wrong factor is counted, although the answer is an error.
"""

from __future__ import annotations

import datetime
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from sqlalchemy import func, select, text, update

from tenantry.domain.identity.factors import challenges
from tenantry.domain.identity.factors.models import FactorChallenge, Passkey
from tenantry.domain.identity.factors.problems import (
    CHALLENGE_INVALID,
    PASSKEY_INVALID,
    SECOND_FACTOR_INVALID,
    STEP_UP_FAILED,
)
from tenantry.domain.identity.factors.proofs import (
    check_failures,
    note_failure,
    octets,
    require_one,
    verify_passkey,
    verify_proof,
)
from tenantry.domain.identity.factors.relying_party import new_challenge
from tenantry.domain.identity.factors.schemas import PasskeyOptions
from tenantry.domain.identity.sessions.models import UserSession
from tenantry.domain.identity.step_up import STEP_UP_REQUIRED, step_up_methods
from tenantry.domain.identity.users.models import User
from tenantry.domain.identity.users.service import UserService
from tenantry.events.record import SYSTEM, record_event
from tenantry.kernel.errors import (
    ClientException,
    NotAuthenticatedException,
    PermissionDeniedException,
    ValidationFailedException,
)
from tenantry.kernel.security import SECOND_FACTOR, Credential, InvalidCredential
from tenantry.tenancy.redis import platform_key, tenant_key
from tenantry.tenancy.request import require_active, require_served
from tenantry.tenancy.scope import EMPTY_SCOPE

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.domain.identity.factors.relying_party import RelyingParty
    from tenantry.domain.identity.factors.schemas import (
        FactorProof,
        PasskeyLoginPayload,
        SecondFactorPayload,
        StepUpPayload,
    )
    from tenantry.domain.identity.principal import UserPrincipal
    from tenantry.domain.identity.sessions.client import Client
    from tenantry.domain.identity.sessions.guessing import Attempt, LoginGuard
    from tenantry.domain.identity.sessions.service import Authenticator, Issued
    from tenantry.kernel.security import PasswordHasher, Vault
    from tenantry.kernel.settings import Settings
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.registry import TenantRegistry

__all__ = ("FactorDesk",)

_AREA = "passkey"
_HAS_ACCOUNTS = frozenset({"active", "suspended"})


class FactorDesk:
    """Trades factors for sessions, and for a session's being recent."""

    def __init__(
        self,
        *,
        database: Database,
        registry: TenantRegistry,
        authenticator: Authenticator,
        hasher: PasswordHasher,
        settings: Settings,
        vault: Vault,
        throttle: LoginGuard,
        redis: Redis,
        party: RelyingParty,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`throttle` counts failed log-ins; a wrong factor is one. `clock` is in seconds since 1970."""
        self._database = database
        self._registry = registry
        self._authenticator = authenticator
        self._hasher = hasher
        self._settings = settings
        self._vault = vault
        self._throttle = throttle
        self._redis = redis
        self.party = party
        self.clock = clock

    # After the password.

    async def complete(self, data: SecondFactorPayload, *, host_tenant: str | None, client: Client) -> Issued:
        """Sign in who has shown the password already, and now a factor.

        Raises:
            NotAuthenticatedException: the factor is wrong, or the challenge is not good any more.
            PermissionDeniedException: the organization is suspended, archived or gone.
            UnavailableException: it is at a revision that this release does not serve.
            TooManyRequestsException: too many have failed on this account.
            ValidationFailedException: not exactly one factor is given.
        """
        require_one(data)
        tenant = self._tenant_of(data.challenge, host_tenant)
        email = await self._owner_of(tenant, data.challenge)
        async with self._attempt(tenant, email, client) as attempt:
            issued, left = await self._trade(tenant, data, client)
        if issued is None:
            if left:
                raise NotAuthenticatedException(
                    "The second factor is wrong.", problem=SECOND_FACTOR_INVALID, attemptsLeft=left
                )
            raise NotAuthenticatedException("Log in again.", problem=CHALLENGE_INVALID)
        await self._throttle.succeeded(tenant, tenant.slug, email, attempt=attempt)
        return issued

    @asynccontextmanager
    async def _attempt(self, tenant: TenantContext, email: str, client: Client) -> AsyncIterator[Attempt]:
        """Counted like a log-in, unless it comes to no verdict."""
        known_device = self._authenticator.known_device(tenant, email, client)
        attempt = await self._throttle.begin(
            tenant, tenant.slug, email, address=client.address, known_device=known_device
        )
        try:
            yield attempt
        except Exception:
            await self._throttle.withdraw(attempt)
            raise

    async def _trade(
        self, tenant: TenantContext, data: SecondFactorPayload, client: Client
    ) -> tuple[Issued | None, int | None]:
        """The tokens; or none, and how many attempts are left of the challenge, if it is good."""
        async with self._database.transaction(tenant.write_scope) as transaction:
            session = transaction.session
            begun = await self._lock(session, tenant, data.challenge)
            if begun is None:
                return None, None
            await check_failures(session, begun.user_id, data, most=self._settings.second_factor_daily_failures)
            if not await self._verify(session, tenant, begun.user_id, data, begun.webauthn_challenge):
                return None, await self._fail(session, begun, data)
            user_id = begun.user_id
            await session.delete(begun)
            await session.execute(update(User).where(User.id == user_id).values(last_login_at=func.now()))
            return await self._authenticator.open_session(session, tenant, user_id, client=client), None

    def _tenant_of(self, token: str, host_tenant: str | None) -> TenantContext:
        try:
            parsed = Credential.parse(token, SECOND_FACTOR)
        except InvalidCredential as error:
            raise NotAuthenticatedException("Log in again.", problem=CHALLENGE_INVALID) from error
        tenant = self._registry.by_id(parsed.tenant_id)
        if tenant is None or (host_tenant is not None and host_tenant != tenant.slug):
            raise NotAuthenticatedException("Log in again.", problem=CHALLENGE_INVALID)
        require_active(tenant)
        return tenant

    async def _owner_of(self, tenant: TenantContext, token: str) -> str:
        async with self._database.transaction(tenant.read_scope) as transaction:
            begun = await challenges.find(transaction.session, tenant, token, kind="log_in")
            email: str | None = None
            if begun is not None:
                email = await transaction.session.scalar(select(User.email).where(User.id == begun.user_id))
        if email is None:
            raise NotAuthenticatedException("Log in again.", problem=CHALLENGE_INVALID)
        return email

    async def _lock(self, session: AsyncSession, tenant: TenantContext, token: str) -> FactorChallenge | None:
        """The log-in that was begun, if the account is as it was then; both are locked."""
        found = await challenges.find(session, tenant, token, kind="log_in")
        if found is None:
            return None
        # The account first, as everywhere: of two who show one code at once, the second waits here.
        row = (
            await session.execute(
                select(User.is_active, User.hashed_password)
                .where(User.id == found.user_id)
                .with_for_update(key_share=True)
            )
        ).one_or_none()
        session.expire(found)
        begun = await challenges.find(session, tenant, token, kind="log_in", lock=True)
        if row is None or begun is None or not row.is_active:
            return None
        return begun if begun.evidence == challenges.evidence_of(row.hashed_password) else None

    async def _fail(self, session: AsyncSession, begun: FactorChallenge, proof: FactorProof) -> int:
        """Count it; how many attempts are left."""
        await note_failure(session, begun.user_id, proof)
        begun.failures += 1
        left = self._settings.second_factor_failures - begun.failures
        if left <= 0:
            await session.delete(begun)
            # Somebody has the password, and not the rest.
            await record_event(session, "second_factor.refused", subject=begun.user_id, actor=SYSTEM)
        await session.flush()
        return max(0, left)

    async def _verify(
        self, session: AsyncSession, tenant: TenantContext, user_id: UUID, proof: FactorProof, challenge: bytes | None
    ) -> bool:
        return await verify_proof(
            session,
            tenant,
            user_id,
            proof,
            vault=self._vault,
            party=self.party,
            challenge=challenge,
            now=self.clock(),
        )

    # Without a password.

    async def passkey_options(self, slug: str) -> PasskeyOptions:
        """What a browser needs to log in with a passkey alone. The same for an organization that does not exist.

        Raises:
            redis.exceptions.RedisError: Redis is away. With a password, log-in goes on.
        """
        token, challenge = secrets.token_urlsafe(32), new_challenge()
        key = self._key(await self._find(slug), slug, token)
        await self._redis.set(key, challenge.hex(), ex=self._settings.second_factor_ttl)
        return PasskeyOptions(
            challenge=token,
            public_key=self.party.authentication(challenge=challenge, alone=True),
            expires_in=self._settings.second_factor_ttl,
        )

    async def log_in_by_passkey(self, slug: str, data: PasskeyLoginPayload, *, client: Client) -> Issued:
        """Sign in whoever holds a passkey of this organization, and has shown it a PIN or a fingerprint.

        Raises:
            ClientException: it is none, or the challenge is not good any more.
            PermissionDeniedException: all is right, but the organization is suspended.
            UnavailableException: it is at a revision that this release does not serve.
            redis.exceptions.RedisError: Redis is away.
        """
        tenant = await self._find(slug)
        # Read and gone in one: of two who come with one challenge, one finds it.
        found = await cast("Awaitable[bytes | str | None]", self._redis.getdel(self._key(tenant, slug, data.challenge)))
        handle = octets(data.passkey.response.user_handle or "")
        if tenant is None or found is None or len(handle) != 32 or handle[:16] != tenant.id.bytes:
            await self._ask_nothing(tenant)
            raise ClientException("The passkey cannot be taken.", problem=PASSKEY_INVALID)
        challenge = bytes.fromhex(found.decode() if isinstance(found, bytes) else found)
        issued: Issued | None = None
        async with self._database.transaction(tenant.write_scope) as transaction:
            session = transaction.session
            user_id = await session.scalar(
                select(User.id)
                .where(User.id == UUID(bytes=handle[16:]), User.is_active)
                .with_for_update(key_share=True)
            )
            if user_id is not None and await verify_passkey(
                session, tenant, user_id, data.passkey, party=self.party, challenge=challenge, alone=True
            ):
                require_active(tenant)
                await session.execute(update(User).where(User.id == user_id).values(last_login_at=func.now()))
                issued = await self._authenticator.open_session(session, tenant, user_id, client=client)
        if issued is None:
            raise ClientException("The passkey cannot be taken.", problem=PASSKEY_INVALID)
        return issued

    async def _find(self, slug: str) -> TenantContext | None:
        tenant = await self._registry.find_slug(slug)
        if tenant is None or tenant.status not in _HAS_ACCOUNTS:
            return None
        require_served(tenant)
        return tenant

    async def _ask_nothing(self, tenant: TenantContext | None) -> None:
        # As many round trips as for a passkey that has to be looked up.
        async with self._database.transaction(EMPTY_SCOPE if tenant is None else tenant.read_scope) as transaction:
            await transaction.session.execute(text("SELECT 1"))

    @staticmethod
    def _key(tenant: TenantContext | None, slug: str, token: str) -> str:
        digest = hashlib.sha256(f"{slug}\0{token}".encode()).hexdigest()
        return platform_key(_AREA, digest) if tenant is None else tenant_key(tenant.id, _AREA, digest)

    # Again, within a session.

    async def step_up_options(self, tenant: TenantContext, principal: UserPrincipal) -> PasskeyOptions:
        """What a browser needs to step up with a passkey; without one, no browser can answer it."""
        ttl = self._settings.second_factor_ttl
        async with self._database.transaction(tenant.write_scope) as transaction:
            session = transaction.session
            known = list(await session.scalars(select(Passkey).where(Passkey.user_id == principal.id)))
            token, begun = await challenges.begin(
                session, tenant, kind="step_up", user_id=principal.id, session_id=principal.session_id, ttl=ttl
            )
            public_key: dict[str, Any] = self.party.authentication(challenge=begun.webauthn_challenge, known=known)
        return PasskeyOptions(challenge=token, public_key=public_key, expires_in=ttl)

    async def step_up(
        self, tenant: TenantContext, principal: UserPrincipal, data: StepUpPayload, *, client: Client
    ) -> datetime.datetime:
        """Let the session be a recent one, since its person has proved again who they are; the moment.

        Raises:
            PermissionDeniedException: it is wrong; or it is the password, where there is a second factor.
            TooManyRequestsException: too many have failed on this account.
            ValidationFailedException: not exactly one proof is given.
        """
        require_one(data, others=data.password is not None)
        if (data.passkey is None) != (data.challenge is None):
            raise ValidationFailedException.of("challenge", "Expected with a passkey, and with nothing else.")
        user, methods = await self._account(tenant, principal.id)
        if data.password is not None and "password" not in methods:
            raise PermissionDeniedException(
                "With a second factor, the password is not enough.",
                problem=STEP_UP_REQUIRED,
                maxAge=self._settings.step_up_after,
                methods=methods,
            )
        async with self._attempt(tenant, user.email, client) as attempt:
            if data.password is not None:
                proved = await self._hasher.verify(user.hashed_password, data.password, key=tenant.id)
            else:
                proved = await self._prove(tenant, principal, data)
            at = await self._note(tenant, principal) if proved else None
        if at is None:
            raise PermissionDeniedException("That does not prove who you are.", problem=STEP_UP_FAILED)
        await self._throttle.succeeded(tenant, tenant.slug, user.email, attempt=attempt)
        return at

    async def _account(self, tenant: TenantContext, user_id: UUID) -> tuple[User, list[str]]:
        async with self._database.transaction(tenant.read_scope) as transaction:
            session = transaction.session
            email = await session.scalar(select(User.email).where(User.id == user_id))
            user = await UserService(session=session).credentials(email or "")
            if user is None:
                raise NotAuthenticatedException("The session has ended.", invalid_token=True)
            return user, await step_up_methods(session, user_id)

    async def _prove(self, tenant: TenantContext, principal: UserPrincipal, data: StepUpPayload) -> bool:
        async with self._database.transaction(tenant.write_scope) as transaction:
            session = transaction.session
            await session.scalar(select(User.id).where(User.id == principal.id).with_for_update(key_share=True))
            await check_failures(session, principal.id, data, most=self._settings.second_factor_daily_failures)
            challenge: bytes | None = None
            if data.challenge is not None:
                begun = await challenges.take(
                    session, tenant, data.challenge, kind="step_up", session_id=principal.session_id
                )
                challenge = None if begun is None else begun.webauthn_challenge
            proved = await self._verify(session, tenant, principal.id, data, challenge)
            if not proved:
                await note_failure(session, principal.id, data)
            return proved

    async def _note(self, tenant: TenantContext, principal: UserPrincipal) -> datetime.datetime | None:
        async with self._database.transaction(tenant.write_scope) as transaction:
            at: datetime.datetime | None = await transaction.session.scalar(
                update(UserSession)
                .where(
                    UserSession.id == principal.session_id,
                    UserSession.user_id == principal.id,
                    UserSession.revoked_at.is_(None),
                )
                .values(authenticated_at=func.now())
                .returning(UserSession.authenticated_at)
            )
            if at is not None:
                await record_event(
                    transaction.session,
                    "session.stepped_up",
                    subject=principal.session_id,
                    payload={"user_id": principal.id},
                )
            return at
