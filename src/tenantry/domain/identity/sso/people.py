"""From what a provider says to an account here: linked, made, or refused."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import select, text, update

from tenantry.domain.identity.enforcement import domain_of
from tenantry.domain.identity.sso.models import SsoIdentity
from tenantry.domain.identity.sso.verification import values_of
from tenantry.domain.identity.users.models import User
from tenantry.domain.identity.users.providers import provide_users
from tenantry.events.record import record_event, user_actor
from tenantry.kernel.errors import ConflictException, PermissionDeniedException, ValidationFailedException
from tenantry.kernel.schema import normalize_email
from tenantry.tenancy.quotas import QUOTA_EXCEEDED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.domain.identity.sso.models import SsoConnection
    from tenantry.domain.identity.users.service import UserService

__all__ = ("Reason", "Refused", "find_or_make", "wanted_claims")

Reason = Literal[
    "email-unverified",
    "email-domain",
    "no-account",
    "deactivated",
    "owner",
    "another-subject",
    "no-role",
    "no-seat",
    "not-in-plan",
]
"""Why somebody was not let in, whom the provider knows: in the front end's address, and in docs/sso.md."""

_MOST_NAME = 100


class Refused(Exception):  # noqa: N818
    """Whoever the provider says that it is may not come in this way."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


def wanted_claims(connection: SsoConnection) -> list[str]:
    """What is asked of userinfo where the ID token does not have it."""
    return ["email", "email_verified", *([connection.role_claim] if connection.role_claim else [])]


async def find_or_make(session: AsyncSession, connection: SsoConnection, claims: Mapping[str, Any]) -> User:
    """The user whom the claims are about, linked to what the provider calls them, with the roles that follow.

    Whom the provider has once said that it is, it says by `sub`; an address links once, the first time, and only one
    that the provider has verified, of a domain that the connection is for.

    Args:
        session: whose transaction is rolled back where it is refused.
        connection: with its domains and grants.
        claims: verified.

    Raises:
        Refused: they may not come in this way.
        advanced_alchemy.exceptions.IntegrityError: they come in by another request at this moment.
    """
    users: UserService = await provide_users(db_session=session)
    identity = await session.scalar(
        select(SsoIdentity).where(SsoIdentity.connection_id == connection.id, SsoIdentity.subject == claims["sub"])
    )
    if identity is not None:
        user = await users.get(identity.user_id)
        await _require_admissible(connection, user)
        await _follow_roles(users, connection, user, claims)
    else:
        user = await _meet(session, users, connection, claims)
        identity = SsoIdentity(connection_id=connection.id, user_id=user.id, subject=claims["sub"])
        session.add(identity)
    identity.last_login_at = datetime.datetime.now(datetime.UTC)
    await users.flush()
    return user


async def _meet(
    session: AsyncSession, users: UserService, connection: SsoConnection, claims: Mapping[str, Any]
) -> User:
    """The account of whoever comes this way for the first time."""
    email = _verified_email(connection, claims)
    user: User | None = await session.scalar(select(User).where(User.email == email).with_for_update())
    if user is None:
        return await _make(session, users, connection, email, claims)
    await session.refresh(user, ["roles"])
    await _require_admissible(connection, user)
    taken = await session.scalar(
        select(SsoIdentity.id).where(SsoIdentity.connection_id == connection.id, SsoIdentity.user_id == user.id)
    )
    if taken is not None:
        # The address belongs to somebody else at the provider now. An administrator says whether that is the same
        # person, by taking the old identity away.
        raise Refused("another-subject")
    await _follow_roles(users, connection, user, claims)
    await _take_over(session, user)
    await record_event(
        session, "sso_identity.linked", subject=connection.id, payload={"user_id": user.id}, actor=user_actor(user.id)
    )
    return user


async def _make(
    session: AsyncSession, users: UserService, connection: SsoConnection, email: str, claims: Mapping[str, Any]
) -> User:
    if not connection.provisions_users:
        raise Refused("no-account")
    roles = _roles(connection, claims)
    if not roles:
        raise Refused("no-role")
    try:
        user = await users.add(
            email=email, hashed_password=None, name=_name(claims), roles=sorted(roles), themselves=True
        )
    except PermissionDeniedException as error:
        if error.problem is not QUOTA_EXCEEDED:
            raise
        raise Refused("no-seat") from error
    user.is_verified, user.verified_at = True, datetime.datetime.now(datetime.UTC)
    await record_event(
        session, "sso_identity.linked", subject=connection.id, payload={"user_id": user.id}, actor=user_actor(user.id)
    )
    return user


async def _require_admissible(connection: SsoConnection, user: User) -> None:
    if not user.is_active:
        raise Refused("deactivated")
    if (user.is_superuser or _is_owner(user)) and not connection.owners_allowed:
        raise Refused("owner")


async def _follow_roles(users: UserService, connection: SsoConnection, user: User, claims: Mapping[str, Any]) -> None:
    """Give the roles that follow from the claims, where the connection says that they do, and take the others away."""
    if connection.role_claim is None:
        return
    roles = _roles(connection, claims)
    if not roles:
        raise Refused("no-role")
    if _is_owner(user) and not _maps_owner(connection):
        # Nothing that the provider says is about owners: they are made and unmade here.
        roles.add("owner")
    if roles == {held.role.slug for held in user.roles}:
        return
    try:
        await users.change(user.id, {"roles": sorted(roles)})
    except ConflictException:
        # The last owner stays one, whatever the provider says: somebody must be able to set this right.
        await users.change(user.id, {"roles": sorted({*roles, "owner"})})


def _roles(connection: SsoConnection, claims: Mapping[str, Any]) -> set[str]:
    """Slugs of the roles that follow from the claims; those for everybody, where no other does."""
    values = values_of(claims, connection.role_claim) if connection.role_claim is not None else None
    said = {str(value) for value in values or () if isinstance(value, str | int) and not isinstance(value, bool)}
    found = {grant.role.slug for grant in connection.grants if grant.claim_value in said}
    if not connection.owners_allowed:
        found.discard("owner")
    return found or {
        grant.role.slug for grant in connection.grants if grant.claim_value is None and grant.role.slug != "owner"
    }


def _is_owner(user: User) -> bool:
    return any(held.role.is_builtin and held.role.slug == "owner" for held in user.roles)


def _maps_owner(connection: SsoConnection) -> bool:
    return any(
        grant.role.is_builtin and grant.role.slug == "owner" and grant.claim_value is not None
        for grant in connection.grants
    )


def _verified_email(connection: SsoConnection, claims: Mapping[str, Any]) -> str:
    email = claims.get("email")
    # True, and nothing that might be meant by it: whoever can write an address into their profile would be whom they
    # like here.
    if not isinstance(email, str) or not email.isprintable() or claims.get("email_verified") is not True:
        raise Refused("email-unverified")
    try:
        email = normalize_email(email)
    except ValidationFailedException:
        raise Refused("email-unverified") from None
    if domain_of(email) not in {each.domain for each in connection.domains}:
        raise Refused("email-domain")
    return email


def _name(claims: Mapping[str, Any]) -> str | None:
    name = claims.get("name")
    if not isinstance(name, str) or not name.isprintable() or not name.strip():
        return None
    return name.strip()[:_MOST_NAME]


async def _take_over(session: AsyncSession, user: User) -> None:
    """The address is proven by the provider now. What came before that, on one that was not, may be somebody else's.

    Somebody could otherwise make an account of an address that is not theirs, and wait for whose it is to come: the
    password, the sessions, the factors and the keys of before would be a second way in.
    """
    now = datetime.datetime.now(datetime.UTC)
    if not user.is_verified and not _is_owner(user) and not user.is_superuser:
        await session.execute(update(User).where(User.id == user.id).values(hashed_password=None))
        for statement in _END:
            await session.execute(statement, {"user_id": user.id})
    user.is_verified, user.verified_at = True, user.verified_at or now
    # Whoever was invited has come, and their link is worth nothing any more.
    for invitation_id in await session.scalars(_CLOSE_INVITATIONS, {"user_id": user.id}):
        await record_event(
            session,
            "invitation.accepted",
            subject=invitation_id,
            payload={"user_id": user.id},
            actor=user_actor(user.id),
        )


# By table names: of packages beside this one.
_END = (
    text("UPDATE user_session SET revoked_at = now() WHERE user_id = :user_id AND revoked_at IS NULL"),
    text("UPDATE api_key SET revoked_at = now() WHERE user_id = :user_id AND revoked_at IS NULL"),
    text("UPDATE password_reset SET used_at = now() WHERE user_id = :user_id AND used_at IS NULL"),
    text("DELETE FROM passkey WHERE user_id = :user_id"),
    text("DELETE FROM totp_factor WHERE user_id = :user_id"),
    text("DELETE FROM recovery_code WHERE user_id = :user_id"),
)
_CLOSE_INVITATIONS = text(
    "UPDATE invitation SET accepted_at = now() WHERE user_id = :user_id AND accepted_at IS NULL RETURNING id"
)
