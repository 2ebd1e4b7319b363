"""Accounts of one organization."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import func, insert, literal, select, text
from sqlalchemy.orm import raiseload, undefer_group

from tenantry.domain.identity.users.models import User
from tenantry.domain.roles.models import Role, UserRole
from tenantry.events.record import record_event, user_actor
from tenantry.jobs.schedule import check_timezone
from tenantry.kernel.errors import ConflictException, ValidationFailedException, define_problem
from tenantry.kernel.schema import normalize_email
from tenantry.kernel.service import Service, changed_fields
from tenantry.tenancy.quotas import use_quota

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from advanced_alchemy.service import ModelDictT
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.kernel.feature import Owner

__all__ = ("LAST_OWNER", "UserService", "count_users", "create_owner")

LAST_OWNER = define_problem(
    "last-owner",
    409,
    "The last owner",
    "An organization always has an active owner. Make somebody else one first.",
)


class UserService(Service[User]):
    """Accounts, their passwords and their roles."""

    class Repo(SQLAlchemyAsyncRepository[User]):
        model_type = User

    repository_type = Repo
    match_fields = ["email"]

    async def to_model_on_create(self, data: ModelDictT[User]) -> ModelDictT[User]:
        return self._populate_model(data)

    async def to_model_on_update(self, data: ModelDictT[User]) -> ModelDictT[User]:
        return self._populate_model(data)

    @staticmethod
    def _populate_model(data: ModelDictT[User]) -> ModelDictT[User]:
        if isinstance(data, dict) and "email" in data:
            data["email"] = normalize_email(data["email"])
        return data

    async def credentials(self, email: str) -> User | None:
        """The user with that address, their password's hash loaded.

        Without their roles: the statement that loads them would tell by its time that there is such a user.
        """
        return await self.get_one_or_none(email=email, load=[undefer_group("secret"), raiseload(User.roles)])

    async def add(
        self,
        *,
        email: str,
        hashed_password: str | None,
        name: str | None,
        roles: list[str],
        field: str = "roles",
        themselves: bool = False,
    ) -> User:
        """A new account with roles; `themselves` if it is the new user's own doing.

        Raises:
            PermissionDeniedException: the plan has no seat for them.
            ValidationFailedException: the address or a role is none.
            advanced_alchemy.exceptions.DuplicateKeyError: the address has an account.
        """
        found = await self.roles_by_slug(roles, field=field)
        await use_quota(self.repository.session, "seats")
        user = await self.create({"email": email, "hashed_password": hashed_password, "name": name})
        user.roles = [UserRole(role=role) for role in found]
        await self.flush()
        await record_event(
            self.repository.session,
            "user.created",
            subject=user.id,
            payload={"role_ids": [role.id for role in found]},
            actor=user_actor(user.id) if themselves else None,
        )
        return user

    async def change(self, user_id: UUID, changes: dict[str, Any]) -> User:
        """Change an account; `roles`, if there, replaces all of its roles. Deactivating it ends its sessions.

        Raises:
            ConflictException: the organization would be left without an active owner.
            PermissionDeniedException: they are let in again, and the plan has no seat for them.
            ValidationFailedException: there is no such role or time zone.
            advanced_alchemy.exceptions.NotFoundError: there is no such account.
        """
        if (zone := changes.get("time_zone")) is not None:
            _check_zone(zone)
        slugs = changes.pop("roles", None)
        user = await self.get(user_id)
        changed = changed_fields(user, changes)
        granted: list[Role] | None = None
        if slugs is not None or changes.get("is_active") is False:
            found = await self.roles_by_slug(slugs) if slugs is not None else None
            stays_owner = (
                "owner" in slugs if slugs is not None else any(held.role.slug == "owner" for held in user.roles)
            ) and changes.get("is_active", user.is_active)
            if not stays_owner:
                await self.require_another_owner(user_id)
            if found is not None:
                held = {held.role_id: held for held in user.roles}
                granted = found if held.keys() != {role.id for role in found} else None
                user.roles = [held.get(role.id) or UserRole(role=role) for role in found]
        if changes.get("is_active") and not user.is_active:
            await use_quota(self.repository.session, "seats")
        for name, value in changes.items():
            setattr(user, name, value)
        await self.flush()
        if changes.get("is_active") is False:
            await self.repository.session.execute(_END_SESSIONS, {"user_id": user_id})
        await self._record_change(user, changed, granted)
        return user

    async def _record_change(self, user: User, changed: list[str], granted: list[Role] | None) -> None:
        if granted is not None:
            await self._record("user.roles_changed", user.id, role_ids=[role.id for role in granted])
        if "is_active" in changed:
            await self._record("user.activated" if user.is_active else "user.deactivated", user.id)
        if fields := [field for field in changed if field != "is_active"]:
            await self._record("user.updated", user.id, fields=fields)

    async def _record(self, name: str, user_id: UUID, **payload: Any) -> None:
        await record_event(self.repository.session, name, subject=user_id, payload=payload)

    async def roles_by_slug(self, slugs: list[str], *, field: str = "roles") -> list[Role]:
        """Those roles, each once.

        Raises:
            ValidationFailedException: there is no role of one of the names.
        """
        wanted = dict.fromkeys(slugs)
        found = {
            role.slug: role for role in await self.repository.session.scalars(select(Role).where(Role.slug.in_(wanted)))
        }
        if missing := [slug for slug in wanted if slug not in found]:
            raise ValidationFailedException.of(field, f"There is no role named {', '.join(missing)}.")
        return [found[slug] for slug in wanted]

    async def require_another_owner(self, user_id: UUID) -> None:
        """Hold the owners fast, until the transaction ends, if the user is not the last active one.

        Raises:
            ConflictException: the user is.
        """
        session = self.repository.session
        # The owner role's row is the lock: two owners who step down at the same moment are told one after the other.
        role_id = await session.scalar(select(Role.id).where(Role.slug == "owner").with_for_update())
        owners = (
            select(func.count())
            .select_from(UserRole)
            .join(User, User.id == UserRole.user_id)
            .where(UserRole.role_id == role_id, User.is_active)
        )
        is_owner = await session.scalar(owners.where(User.id == user_id))
        others = await session.scalar(owners.where(User.id != user_id))
        if is_owner and not others:
            raise ConflictException("This is the organization's last active owner.", problem=LAST_OWNER)


def _check_zone(name: str) -> None:
    try:
        check_timezone(name)
    except ValueError as error:
        raise ValidationFailedException.of(
            "timeZone", "Expected a time zone of the IANA database, such as Europe/Zurich."
        ) from error


# By table name: the sessions' package imports this one. Refused they are while the account is deactivated; ended, they
# stay so when it is activated again.
_END_SESSIONS = text("UPDATE user_session SET revoked_at = now() WHERE user_id = :user_id AND revoked_at IS NULL")


async def create_owner(session: AsyncSession, owner: Owner) -> None:
    """Give a new organization its first user; without a password, the invitations' hook lets them set one.

    Whatever the plan says of seats: without them, nobody could make room.
    """
    # Two statements and nothing of the unit of work: whoever creates a tenant waits for this.
    await session.execute(
        insert(User).values(
            id=owner.id,
            email=normalize_email(owner.email),
            name=owner.name,
            hashed_password=owner.password_hash,
            is_verified=owner.is_verified,
            verified_at=func.now() if owner.is_verified else None,
        )
    )
    role = select(literal(owner.id), Role.id).where(Role.slug == "owner")
    held = await session.execute(insert(UserRole).from_select(["user_id", "role_id"], role).returning(UserRole.id))
    held.one()


async def count_users(session: AsyncSession) -> Mapping[str, Any]:
    """How many active accounts there are, for the platform's operators."""
    return {"users": await session.scalar(select(func.count()).select_from(User).where(User.is_active))}
