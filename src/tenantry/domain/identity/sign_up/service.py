"""Joining an organization that lets people in whom nobody has invited."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Select, func, select, update

from tenantry.domain.identity.account_policy.service import newcomers_role, read_policy
from tenantry.domain.identity.enforcement import require_password_allowed
from tenantry.domain.identity.links import find_tenant, paced, tenant_of_link
from tenantry.domain.identity.sign_up.mails import SIGN_UP_MAIL
from tenantry.domain.identity.sign_up.models import SignUp
from tenantry.domain.identity.users.models import User
from tenantry.domain.identity.users.providers import provide_users
from tenantry.domain.identity.verification.mails import ACCOUNT_EXISTS_MAIL
from tenantry.events.record import record_event, user_actor
from tenantry.kernel.errors import ClientException, define_problem
from tenantry.kernel.schema import normalize_email
from tenantry.kernel.security import SIGN_UP, Credential
from tenantry.kernel.security.policy import check_new_password
from tenantry.mail.definition import require_mail

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.domain.identity.sessions.client import Client
    from tenantry.domain.identity.sessions.service import Authenticator, Issued
    from tenantry.domain.identity.sessions.throttle import LoginThrottle
    from tenantry.domain.identity.users.service import UserService
    from tenantry.domain.roles.catalogue import PermissionCatalogue
    from tenantry.domain.roles.models import Role
    from tenantry.kernel.security import PasswordHasher, Vault
    from tenantry.kernel.settings import Settings
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.registry import TenantRegistry

__all__ = ("SIGN_UP_INVALID", "SignUps")

SIGN_UP_INVALID = define_problem(
    "sign-up-invalid",
    400,
    "Sign-up not valid",
    "The link was used already, has expired, or never was one; or the organization lets nobody sign up any more. Ask "
    "for a new one.",
)
_EVERYBODY = "*"
"""What the organization's own throttle counts in place of an address; an address it is not."""


class SignUps:
    """Mails links, and trades them for accounts; no transaction is open while a password is hashed."""

    def __init__(
        self,
        *,
        database: Database,
        registry: TenantRegistry,
        authenticator: Authenticator,
        hasher: PasswordHasher,
        settings: Settings,
        vault: Vault,
        throttle: LoginThrottle,
        organization_throttle: LoginThrottle,
    ) -> None:
        """`throttle` counts the requests for one address, `organization_throttle` those to one organization."""
        self._database = database
        self._registry = registry
        self._authenticator = authenticator
        self._hasher = hasher
        self._settings = settings
        self._vault = vault
        self._throttle = throttle
        self._organization_throttle = organization_throttle

    async def request(self, slug: str, email: str, catalogue: PermissionCatalogue) -> None:
        """Have a link mailed, if the organization lets people of that address sign up. Who asks is not told.

        An address that has an account already is written to as well, in other words.

        Raises:
            ValidationFailedException: it is no address at all.
            UnavailableException: no mail is sent here, or the organization is at a revision that this release does not
                serve.
            TooManyRequestsException: too many were asked for of this address or of this organization, whether or not
                there is either.
        """
        async with paced():
            require_mail(self._settings)
            email = normalize_email(email)
            tenant = await find_tenant(self._registry, slug)
            await self._throttle.check(tenant, slug, email)
            await self._organization_throttle.check(tenant, slug, _EVERYBODY)
            await self._throttle.failed(tenant, slug, email)
            await self._organization_throttle.failed(tenant, slug, _EVERYBODY)
            if tenant is not None:
                await self._write(tenant, email, catalogue)

    async def _write(self, tenant: TenantContext, email: str, catalogue: PermissionCatalogue) -> None:
        async with self._database.transaction(tenant.write_scope) as transaction:
            session = transaction.session
            if await _role_for(session, email, catalogue) is None:
                return
            holder = (await session.execute(select(User.id, User.is_active).where(User.email == email))).one_or_none()
            if holder is not None:
                if holder.is_active:
                    await ACCOUNT_EXISTS_MAIL.send(session, about=holder.id)
                return
            # The brake that holds while Redis is away: nobody's mailbox is to be filled by others.
            sent = await session.scalar(
                select(func.count())
                .select_from(SignUp)
                .where(SignUp.email == email, SignUp.created_at > func.now() - datetime.timedelta(days=1))
            )
            if (sent or 0) >= self._settings.account_mails:
                return
            token, digest = Credential.new(SIGN_UP, tenant.id)
            made = SignUp(
                email=email,
                digest=digest,
                expires_at=_now() + datetime.timedelta(seconds=self._settings.member_sign_up_ttl),
            )
            session.add(made)
            await session.flush()
            await SIGN_UP_MAIL.send(session, about=made.id, secret=token, vault=self._vault)

    async def accept(
        self,
        token: str,
        password: str,
        *,
        name: str | None,
        host_tenant: str | None,
        client: Client,
        catalogue: PermissionCatalogue,
    ) -> Issued:
        """Make the account, with a confirmed address and the role of newcomers, and sign it in.

        Raises:
            ClientException: the token is not valid, or nobody may sign up with its address any more.
            PermissionDeniedException: the organization is suspended, archived or gone, or wants people of the domain to
                sign in by a provider.
            UnavailableException: it is at a revision that this release does not serve.
            ValidationFailedException: the password is too weak; the token stays good.
            advanced_alchemy.exceptions.DuplicateKeyError: the address has got an account meanwhile.
        """
        tenant, digest = tenant_of_link(
            self._registry, token, SIGN_UP, host_tenant=host_tenant, problem=SIGN_UP_INVALID
        )
        async with self._database.transaction(tenant.read_scope) as transaction:
            found, _ = await _found(transaction.session, _valid(digest), catalogue)
            email = found.email
            await require_password_allowed(transaction.session, tenant, email, None)
        check_new_password(self._settings, password, email=email, organization=tenant.words, name=name)
        hashed = await self._hasher.hash(password, key=tenant.id)
        async with self._database.transaction(tenant.write_scope) as transaction:
            session = transaction.session
            # All of the address: of two who come with two links, the second finds its own used.
            await session.execute(select(SignUp.id).where(SignUp.email == email).order_by(SignUp.id).with_for_update())
            found, role = await _found(session, _valid(digest), catalogue)
            users: UserService = await provide_users(db_session=session)
            user = await users.add(
                email=found.email, hashed_password=hashed, name=name, roles=[role.slug], themselves=True
            )
            now = _now()
            # Whoever has the link has read mail at the address.
            user.is_verified, user.verified_at, user.last_login_at = True, now, now
            await session.flush()
            await session.execute(
                update(SignUp).where(SignUp.email == found.email, SignUp.used_at.is_(None)).values(used_at=now)
            )
            await record_event(session, "user.signed_up", subject=user.id, actor=user_actor(user.id))
            return await self._authenticator.open_session(session, tenant, user.id, client=client)


async def _role_for(session: AsyncSession, email: str, catalogue: PermissionCatalogue) -> Role | None:
    """The role of somebody with that address, None where they may not sign up."""
    policy = await read_policy(session)
    is_of_domain = email.rpartition("@")[2] in policy.domains
    if policy.sign_up == "off" or (policy.sign_up == "domains" and not is_of_domain):
        return None
    return await newcomers_role(session, policy, catalogue)


async def _found(
    session: AsyncSession, statement: Select[SignUp], catalogue: PermissionCatalogue
) -> tuple[SignUp, Role]:
    found: SignUp | None = await session.scalar(statement)
    role = None if found is None else await _role_for(session, found.email, catalogue)
    if found is None or role is None:
        raise ClientException(problem=SIGN_UP_INVALID)
    return found, role


def _valid(digest: bytes) -> Select[SignUp]:
    return select(SignUp).where(SignUp.digest == digest, SignUp.used_at.is_(None), SignUp.expires_at > func.now())


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
