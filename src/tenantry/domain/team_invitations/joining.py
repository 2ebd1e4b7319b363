"""Joining a team from outside: the answers of people who have no account yet."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Select, func, select

from tenantry.domain.identity.account_policy.service import EMAIL_UNVERIFIED, is_refused
from tenantry.domain.identity.enforcement import require_password_allowed
from tenantry.domain.identity.invitations.service import INVITATION_INVALID, inviting_tenant
from tenantry.domain.identity.users.providers import provide_users
from tenantry.domain.identity.verification.service import send_verification
from tenantry.domain.roles.models import Role
from tenantry.domain.team_invitations.models import TeamInvitation
from tenantry.domain.team_invitations.service import is_vouched_for, record_made
from tenantry.domain.teams.service import provide_members
from tenantry.events.record import SYSTEM, record_event, user_actor
from tenantry.kernel.errors import ClientException, PermissionDeniedException
from tenantry.kernel.security import TEAM_INVITATION, PasswordHasher
from tenantry.kernel.security.policy import check_new_password

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.domain.identity.sessions.client import Client
    from tenantry.domain.identity.sessions.service import Authenticator, Issued
    from tenantry.domain.identity.users.service import UserService
    from tenantry.domain.roles.catalogue import PermissionCatalogue
    from tenantry.domain.teams.service import TeamMemberService
    from tenantry.kernel.security import Vault
    from tenantry.kernel.settings import Settings
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.registry import TenantRegistry

__all__ = ("TeamInvitations",)


class TeamInvitations:
    """Answers of people who have no account yet; no transaction is open while a password is hashed."""

    def __init__(
        self,
        *,
        database: Database,
        registry: TenantRegistry,
        authenticator: Authenticator,
        hasher: PasswordHasher,
        settings: Settings,
        vault: Vault,
    ) -> None:
        self._database = database
        self._registry = registry
        self._authenticator = authenticator
        self._hasher = hasher
        self._settings = settings
        self._vault = vault

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
        """Make the account, put it into the team and sign it in: all of it or nothing.

        That the address is theirs is not proven: the credential is handed out by whoever has asked them.

        Raises:
            ClientException: the invitation is not valid, or whoever made it could not make it any more.
            PermissionDeniedException: the organization is suspended, archived or gone, or wants its people to sign in
                by a provider; or the account is made, and its address has to be confirmed before it is let in.
            UnavailableException: it is still being made, or at a revision that this release does not serve.
            ValidationFailedException: the password is too weak.
            advanced_alchemy.exceptions.DuplicateKeyError: the address has got an account meanwhile.
        """
        tenant, digest = await self._tenant(token, host_tenant)
        async with self._database.transaction(tenant.read_scope) as transaction:
            email = (await _found(transaction.session, _valid(digest))).email
            await require_password_allowed(transaction.session, tenant, email, None)
        check_new_password(self._settings, password, email=email, organization=tenant.words, name=name)
        hashed = await self._hasher.hash(password, key=tenant.id)
        async with self._database.transaction(tenant.write_scope) as transaction:
            session = transaction.session
            invitation = await _found(session, _valid(digest).with_for_update())
            role = await session.scalar(select(Role).where(Role.id == invitation.role_id))
            if role is None or not await is_vouched_for(session, invitation, role, catalogue):
                raise ClientException(problem=INVITATION_INVALID)
            users: UserService = await provide_users(db_session=session)
            user = await users.add(
                email=invitation.email, hashed_password=hashed, name=name, roles=[role.slug], themselves=True
            )
            user.last_login_at = datetime.datetime.now(datetime.UTC)
            members: TeamMemberService = await provide_members(db_session=session)
            await members.join(invitation.team_id, user.id, invitation.role, as_owner=True, themselves=True)
            invitation.end("accepted")
            invitation.user_id = user.id
            await session.flush()
            await record_made(session, "accepted", invitation, actor=user_actor(user.id))
            if not await is_refused(session, user.id):
                return await self._authenticator.open_session(session, tenant, user.id, client=client)
            # The account stays, and waits for its address to be confirmed.
            await send_verification(
                session, tenant, user.id, user.email, settings=self._settings, vault=self._vault, actor=SYSTEM
            )
        raise PermissionDeniedException(
            "The account is made. Confirm its e-mail address, by the link that was mailed to it, and log in.",
            problem=EMAIL_UNVERIFIED,
        )

    async def decline(self, token: str, *, host_tenant: str | None) -> None:
        """Stay out, without an account.

        Raises:
            ClientException, PermissionDeniedException, UnavailableException: as `accept`.
        """
        tenant, digest = await self._tenant(token, host_tenant)
        async with self._database.transaction(tenant.write_scope) as transaction:
            session = transaction.session
            invitation = await _found(session, _valid(digest).with_for_update())
            invitation.end("declined")
            await session.flush()
            await record_event(
                session, "team_invitation.declined", subject=invitation.id, payload={"team_id": invitation.team_id}
            )

    async def _tenant(self, token: str, host_tenant: str | None) -> tuple[TenantContext, bytes]:
        return await inviting_tenant(self._registry, token, TEAM_INVITATION, host_tenant=host_tenant)


def _valid(digest: bytes) -> Select[TeamInvitation]:
    return select(TeamInvitation).where(
        TeamInvitation.digest == digest, TeamInvitation.status == "pending", TeamInvitation.expires_at > func.now()
    )


async def _found(session: AsyncSession, statement: Select[TeamInvitation]) -> TeamInvitation:
    found: TeamInvitation | None = await session.scalar(statement)
    if found is None:
        raise ClientException(problem=INVITATION_INVALID)
    return found
