"""Who may make an account, and who is let in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from email_validator import EmailNotValidError, validate_email
from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert

from tenantry.domain.identity.account_policy.mail_providers import PUBLIC_MAIL_PROVIDERS
from tenantry.domain.identity.account_policy.models import ONLY, AccountPolicy
from tenantry.domain.identity.users.authority import require_may_grant
from tenantry.domain.identity.users.models import User
from tenantry.domain.roles.models import Role
from tenantry.events.record import record_event
from tenantry.kernel.errors import (
    ConflictException,
    PermissionDeniedException,
    ValidationFailedException,
    define_problem,
)
from tenantry.kernel.service import changed_fields

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.domain.roles.catalogue import PermissionCatalogue
    from tenantry.tenancy.guards import Principal

__all__ = (
    "EMAIL_UNVERIFIED",
    "SIGN_UP_CEILING",
    "AccountPolicies",
    "is_refused",
    "newcomers_role",
    "read_policy",
    "require_verified",
)

EMAIL_UNVERIFIED = define_problem(
    "email-unverified",
    403,
    "Address not confirmed",
    "The organization lets in nobody whose e-mail address is not confirmed. POST /api/auth/verify-email/request has a "
    "link mailed that confirms it.",
)
SETTER_UNVERIFIED = define_problem(
    "own-email-unverified",
    409,
    "Your own address is not confirmed",
    "Whoever shuts out people whose address is not confirmed would be the first of them. Confirm yours first.",
)

SIGN_UP_CEILING = "member"
"""Newcomers are strangers: they get nothing that this built-in role does not have."""
DEFAULT_ROLE = "viewer"


async def read_policy(session: AsyncSession) -> AccountPolicy:
    """What the organization asks of accounts; the defaults, where it has never said."""
    found = await session.get(AccountPolicy, ONLY)
    return found or AccountPolicy(id=ONLY, sign_up="off", domains=[], role_id=None, verified_only=False)


async def newcomers_role(session: AsyncSession, policy: AccountPolicy, catalogue: PermissionCatalogue) -> Role | None:
    """The role of people who sign up; None where it permits more than newcomers may have.

    It is looked at when it is given: roles of an organization's own change, and the policy does not hear of it.
    """
    role: Role | None = await session.scalar(
        select(Role).where(Role.id == policy.role_id)
        if policy.role_id is not None
        else select(Role).where(Role.slug == DEFAULT_ROLE, Role.is_builtin)
    )
    return role if role is not None and _is_humble(role, catalogue) else None


async def is_refused(session: AsyncSession, user_id: UUID) -> bool:
    """Whether the organization keeps the user out until their address is confirmed."""
    return bool(
        await session.scalar(
            select(User.id)
            .join(AccountPolicy, AccountPolicy.id == ONLY)
            .where(User.id == user_id, User.is_verified.is_(False), AccountPolicy.verified_only)
        )
    )


async def require_verified(session: AsyncSession, user_id: UUID) -> None:
    """Refuse a user who has proven who they are, and whose address nobody has.

    Raises:
        PermissionDeniedException: that is so, and the organization asks for it.
    """
    if await is_refused(session, user_id):
        raise PermissionDeniedException("Confirm your e-mail address first.", problem=EMAIL_UNVERIFIED)


class AccountPolicies:
    """The policy of one organization, in the caller's transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def read(self) -> tuple[AccountPolicy, Role | None]:
        """The policy with the role that somebody has chosen for newcomers."""
        policy = await read_policy(self._session)
        return policy, await self._role(policy)

    async def change(
        self, changes: dict[str, Any], principal: Principal, catalogue: PermissionCatalogue
    ) -> tuple[AccountPolicy, Role | None]:
        """Change what is in `changes`. Turning `verified_only` on ends the sessions of those whom it shuts out.

        Raises:
            ValidationFailedException: a domain is none, or everybody's; or there is no such role, or it permits more
                than newcomers may have.
            PermissionDeniedException: the role permits what the caller may not.
            ConflictException: the caller would shut themselves out.
        """
        session = self._session
        await session.execute(
            insert(AccountPolicy)
            .values(id=ONLY, sign_up="off", domains=[], verified_only=False)
            .on_conflict_do_nothing()
        )
        policy: AccountPolicy = await session.get_one(AccountPolicy, ONLY, with_for_update=True)
        if "domains" in changes:
            changes["domains"] = _checked_domains(changes["domains"])
        changed = changed_fields(policy, changes)
        for name, value in changes.items():
            setattr(policy, name, value)
        role = await self._checked_role(policy, principal, catalogue, changed)
        if policy.sign_up == "domains" and not policy.domains:
            raise ValidationFailedException.of("domains", "Expected a domain or more, since people of those may join.")
        if "verified_only" in changed and policy.verified_only:
            await self._require_own_address(principal)
            await session.flush()
            await session.execute(_LOCK_UNVERIFIED)
            await session.execute(_END_UNVERIFIED)
        await session.flush()
        if changed:
            await record_event(session, "account_policy.changed", subject=ONLY, payload={"fields": changed})
        return policy, role

    async def _checked_role(
        self, policy: AccountPolicy, principal: Principal, catalogue: PermissionCatalogue, changed: Iterable[str]
    ) -> Role | None:
        role = await self._role(policy)
        if policy.role_id is not None and role is None:
            raise ValidationFailedException.of("roleId", "Expected the id of a role of this organization.")
        if not {"role_id", "sign_up"}.intersection(changed) or role is None:
            return role
        if not _is_humble(role, catalogue):
            raise ValidationFailedException.of(
                "roleId", f"Expected a role that permits no more than {SIGN_UP_CEILING!r} does."
            )
        require_may_grant(principal, [role], catalogue)
        return role

    async def _role(self, policy: AccountPolicy) -> Role | None:
        if policy.role_id is None:
            return None
        found: Role | None = await self._session.scalar(select(Role).where(Role.id == policy.role_id))
        return found

    async def _require_own_address(self, principal: Principal) -> None:
        if not await self._session.scalar(select(User.is_verified).where(User.id == principal.user_id)):
            raise ConflictException("Your own e-mail address is not confirmed.", problem=SETTER_UNVERIFIED)


# Whoever logs in has locked the account's row before asking for the policy: who was faster is waited for here, and who
# is slower is refused.
_LOCK_UNVERIFIED = text("SELECT id FROM user_account WHERE NOT is_verified ORDER BY id FOR UPDATE")
# By table name: the sessions' package imports this one.
_END_UNVERIFIED = text(
    "UPDATE user_session SET revoked_at = now() WHERE revoked_at IS NULL"
    " AND user_id IN (SELECT id FROM user_account WHERE NOT is_verified)"
)


def _is_humble(role: Role, catalogue: PermissionCatalogue) -> bool:
    granted = catalogue.granted(role.slug, builtin=role.is_builtin, stored=role.permissions)
    return granted <= catalogue.granted(SIGN_UP_CEILING, builtin=True, stored=[])


def _checked_domains(domains: list[str]) -> list[str]:
    """The domains as addresses have them, each once, in order."""
    checked = dict.fromkeys(_checked_domain(domain) for domain in domains)
    return sorted(checked)


def _checked_domain(domain: str) -> str:
    try:
        found = validate_email(f"somebody@{domain}", check_deliverability=False)
    except EmailNotValidError:
        raise ValidationFailedException.of(
            "domains", f"Expected domains such as example.com, not {domain!r}."
        ) from None
    plain = found.domain.lower()
    if plain in PUBLIC_MAIL_PROVIDERS:
        raise ValidationFailedException.of(
            "domains", f"Expected domains of your own: anybody gets an address at {plain}."
        )
    return plain
