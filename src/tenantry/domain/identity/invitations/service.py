"""Inviting people, and accepting an invitation."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Literal

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import Select, func, insert, select
from sqlalchemy.orm import contains_eager, joinedload
from uuid_utils.compat import uuid7

from tenantry.domain.identity.enforcement import require_password_allowed
from tenantry.domain.identity.invitations.mails import INVITATION_MAIL
from tenantry.domain.identity.invitations.models import Invitation
from tenantry.domain.identity.invitations.schemas import InvitationRead
from tenantry.domain.identity.users.models import User
from tenantry.events.record import record_event, user_actor
from tenantry.kernel.errors import ClientException, ConflictException, ResourceNotFoundException, define_problem
from tenantry.kernel.security import INVITATION, Credential, InvalidCredential, PasswordHasher
from tenantry.kernel.security.policy import check_new_password
from tenantry.kernel.service import Service, create_service_provider
from tenantry.tenancy.request import require_active

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.domain.identity.sessions.client import Client
    from tenantry.domain.identity.sessions.service import Authenticator, Issued
    from tenantry.kernel.feature import Owner
    from tenantry.kernel.security import Vault
    from tenantry.kernel.settings import Settings
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.registry import TenantRegistry

__all__ = (
    "INVITATION_CLOSED",
    "INVITATION_INVALID",
    "InvitationService",
    "Invitations",
    "invite_owner",
    "inviting_tenant",
    "provide_invitations",
    "read_invitation",
)

INVITATION_INVALID = define_problem(
    "invitation-invalid",
    400,
    "Invitation not valid",
    "The invitation was used already, has expired, or never was one. Ask for a new one.",
)

INVITATION_CLOSED = define_problem(
    "invitation-closed",
    409,
    "The invitation was accepted",
    "Its person has a password already, or their account is shut out: there is nothing to send again or to revoke.",
)


class InvitationService(Service[Invitation]):
    """The invitations of one organization."""

    class Repo(SQLAlchemyAsyncRepository[Invitation]):
        model_type = Invitation

    repository_type = Repo

    async def invite(self, user_id: UUID, tenant: TenantContext, *, vault: Vault, settings: Settings) -> Invitation:
        """Mail the person of an account without a password a link with which they set one.

        Raises:
            VaultError: the vault cannot be opened.
        """
        token, digest = Credential.new(INVITATION, tenant.id)
        made = await self.create(
            {"user_id": user_id, "digest": digest, "expires_at": _expiry(settings), "is_mailed": True}
        )
        await self._tell("invitation.created", made)
        await INVITATION_MAIL.send(self.repository.session, about=made.id, secret=token, vault=vault)
        return await self.open_one(made.id)

    async def waiting(self, email: str) -> User | None:
        """The active account of that address that nobody can get into yet, if there is one: a directory made it."""
        found: User | None = await self.repository.session.scalar(
            select(User).where(
                User.email == email,
                User.is_active,
                User.hashed_password.is_(None),
                User.last_login_at.is_(None),
                ~select(Invitation.id).where(Invitation.user_id == User.id).exists(),
            )
        )
        return found

    async def open_one(self, invitation_id: UUID) -> Invitation:
        """An invitation that can still come to something, its account beside it, locked.

        Raises:
            ResourceNotFoundException: there is none.
            ConflictException: it was accepted, or its account is deactivated.
        """
        found: Invitation | None = await self.repository.session.scalar(
            select(Invitation)
            .join(Invitation.user)
            .options(contains_eager(Invitation.user))
            .where(Invitation.id == invitation_id)
            .with_for_update(of=Invitation)
            .execution_options(populate_existing=True)
        )
        if found is None:
            raise ResourceNotFoundException("There is no such invitation.")
        if found.accepted_at is not None or not found.user.is_active:
            raise ConflictException("The invitation is closed.", problem=INVITATION_CLOSED)
        return found

    async def renew(self, invitation: Invitation, tenant: TenantContext, *, vault: Vault, settings: Settings) -> None:
        """Mail another link, good from now on. Who has the old one, from a mail that was forwarded say, has nothing.

        Raises:
            VaultError: the vault cannot be opened.
        """
        token, invitation.digest = Credential.new(INVITATION, tenant.id)
        invitation.expires_at = _expiry(settings)
        invitation.is_mailed = True
        await self.flush()
        await self._tell("invitation.resent", invitation)
        await INVITATION_MAIL.send(self.repository.session, about=invitation.id, secret=token, vault=vault)

    async def revoke(self, invitation_id: UUID) -> None:
        """Let it expire now; a mail with it that still waits is not sent.

        Raises:
            ResourceNotFoundException: there is none.
            ConflictException: it was accepted, or its account is deactivated.
        """
        invitation = await self.open_one(invitation_id)
        now = datetime.datetime.now(datetime.UTC)
        if invitation.expires_at > now:
            invitation.expires_at = now
            await self.flush()
            await self._tell("invitation.revoked", invitation)

    async def _tell(self, event: str, invitation: Invitation) -> None:
        await record_event(
            self.repository.session, event, subject=invitation.id, payload={"user_id": invitation.user_id}
        )


provide_invitations = create_service_provider(InvitationService, load=[joinedload(Invitation.user, innerjoin=True)])


def read_invitation(invitation: Invitation, struct: type[InvitationRead] = InvitationRead) -> InvitationRead:
    """An invitation on the wire; `user` is loaded."""
    if invitation.accepted_at is not None:
        status: Literal["pending", "accepted", "expired"] = "accepted"
    else:
        status = "pending" if invitation.expires_at > datetime.datetime.now(datetime.UTC) else "expired"
    return struct(
        id=invitation.id,
        user_id=invitation.user_id,
        email=invitation.user.email,
        name=invitation.user.name,
        status=status,
        expires_at=invitation.expires_at,
        accepted_at=invitation.accepted_at,
        created_at=invitation.created_at,
        updated_at=invitation.updated_at,
    )


def _expiry(settings: Settings) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=settings.invitation_ttl)


class Invitations:
    """Accepts invitations; as in the sessions' service, no transaction is open while a password is hashed."""

    def __init__(
        self,
        *,
        database: Database,
        registry: TenantRegistry,
        authenticator: Authenticator,
        hasher: PasswordHasher,
        settings: Settings,
    ) -> None:
        self._database = database
        self._registry = registry
        self._authenticator = authenticator
        self._hasher = hasher
        self._settings = settings

    async def accept(
        self, token: str, password: str, *, name: str | None, host_tenant: str | None, client: Client
    ) -> Issued:
        """Set the invited person's password and sign them in. An invitation is good for one use.

        Raises:
            ClientException: the invitation is not valid.
            PermissionDeniedException: the organization is suspended, archived or gone, or wants its people to sign in
                by a provider.
            UnavailableException: it is still being made, or at a revision that this release does not serve.
            ValidationFailedException: the password is too weak.
        """
        tenant, digest = await inviting_tenant(self._registry, token, INVITATION, host_tenant=host_tenant)
        invited = await self._invited(tenant, digest)
        check_new_password(self._settings, password, email=invited.email, organization=tenant.words, name=name)
        hashed = await self._hasher.hash(password, key=tenant.id)
        async with self._database.transaction(tenant.write_scope) as transaction:
            session = transaction.session
            invitation = await session.scalar(_valid(digest).with_for_update(of=Invitation))
            if invitation is None:
                raise ClientException(problem=INVITATION_INVALID)
            now = datetime.datetime.now(datetime.UTC)
            invitation.accepted_at = now
            user = await session.get_one(User, invitation.user_id)
            user.hashed_password = hashed
            user.name = name or user.name
            user.last_login_at = now
            if invitation.is_mailed:
                # Whoever holds the invitation has read mail at the address. One that was shown to an operator says
                # nothing of who has got it from there.
                user.is_verified, user.verified_at = True, now
            await session.flush()
            await record_event(
                session,
                "invitation.accepted",
                subject=invitation.id,
                payload={"user_id": user.id},
                actor=user_actor(user.id),
            )
            return await self._authenticator.open_session(session, tenant, user.id, client=client)

    async def _invited(self, tenant: TenantContext, digest: bytes) -> User:
        async with self._database.transaction(tenant.read_scope) as transaction:
            invitation = await transaction.session.scalar(_valid(digest))
            if invitation is None:
                raise ClientException(problem=INVITATION_INVALID)
            user = await transaction.session.get_one(User, invitation.user_id)
            await require_password_allowed(transaction.session, tenant, user.email, user.id)
            return user


async def inviting_tenant(
    registry: TenantRegistry, token: str, kind: str, *, host_tenant: str | None
) -> tuple[TenantContext, bytes]:
    """The tenant that an invitation names, and the digest by which it is known there.

    Raises:
        ClientException: it is none of this kind, or another tenant's than the host's.
        PermissionDeniedException: the organization is suspended, archived or gone.
        UnavailableException: it is still being made, or at a revision that this release does not serve.
    """
    try:
        parsed = Credential.parse(token, kind)
    except InvalidCredential as error:
        raise ClientException(problem=INVITATION_INVALID) from error
    tenant = registry.by_id(parsed.tenant_id)
    if tenant is None or tenant.status == "provisioning":
        # Made just now, by another process: whoever holds the invitation was told that it is ready.
        await registry.refresh()
        tenant = registry.by_id(parsed.tenant_id)
    if tenant is None or (host_tenant is not None and host_tenant != tenant.slug):
        raise ClientException(problem=INVITATION_INVALID)
    require_active(tenant)
    return tenant, parsed.digest


def _valid(digest: bytes) -> Select[Invitation]:
    return (
        select(Invitation)
        .join(User, User.id == Invitation.user_id)
        .where(
            Invitation.digest == digest,
            Invitation.accepted_at.is_(None),
            Invitation.expires_at > func.now(),
            User.is_active,
        )
    )


async def invite_owner(session: AsyncSession, owner: Owner) -> None:
    """Let the first user of a new organization, made without a password, set one."""
    if owner.invitation_hash is None:
        return
    await session.execute(
        insert(Invitation).values(
            id=owner.invitation_id or uuid7(),
            user_id=owner.id,
            digest=owner.invitation_hash,
            expires_at=datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=owner.invitation_ttl),
        )
    )
