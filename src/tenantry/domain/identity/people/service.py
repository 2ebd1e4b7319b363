"""Shutting people out, letting them in again, and erasing them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, select
from sqlalchemy.orm import joinedload, lazyload, load_only, selectinload, undefer_group

from tenantry.domain.identity.users.models import User
from tenantry.domain.identity.users.service import UserService
from tenantry.domain.roles.models import Role, UserRole
from tenantry.events.record import record_event
from tenantry.kernel.errors import (
    ConflictException,
    ResourceNotFoundException,
    ValidationFailedException,
    define_problem,
)
from tenantry.kernel.personal import Person, current_personal
from tenantry.kernel.schema import normalize_email
from tenantry.kernel.service import create_service_provider

if TYPE_CHECKING:
    from uuid import UUID

__all__ = ("NO_PASSWORD", "PeopleService", "check_typed", "provide_people")

NO_PASSWORD = define_problem(
    "no-password",
    409,
    "The account has no password",
    "What was asked for is confirmed by the account's password, and it has none. Ask an administrator to do it.",
)


class PeopleService(UserService):
    """Accounts, where people come and go."""

    async def deactivate(self, user_id: UUID, *, successor_id: UUID | None = None) -> User:
        """Shut a user out: their sessions and API keys end, for good, with the next request. Twice is once.

        Raises:
            ConflictException: they are the last active owner, or the only owner of a team, and there is no successor.
            ValidationFailedException: the successor is no active user.
            advanced_alchemy.exceptions.NotFoundError: there is no such account.
        """
        user = await self.get(user_id)
        if user.is_active or successor_id is not None:
            await current_personal().let_leave(self.repository.session, user_id, successor_id)
        return await self.change(user_id, {"is_active": False})

    async def reactivate(self, user_id: UUID) -> User:
        """Let a user in again, who logs in anew. Twice is once.

        Raises:
            advanced_alchemy.exceptions.NotFoundError: there is no such account.
        """
        return await self.change(user_id, {"is_active": True})

    async def erase(
        self, user_id: UUID, *, successor_id: UUID | None = None, hashed_password: str | None = None
    ) -> None:
        """Delete an account and everything that is its person's (GDPR, Art. 17), with the caller's transaction.

        What is left are ids that lead nowhere: in the audit trail, which holds nothing else, and where others have been
        told of something. `hashed_password` is what the caller has confirmed it by: it must be the account's still.

        Raises:
            ConflictException: they are the last active owner, or the only owner of a team, and there is no successor.
            ValidationFailedException: the successor is no active user, or the password was changed meanwhile.
            ResourceNotFoundException: there is no such account.
        """
        session, catalogue = self.repository.session, current_personal()
        await catalogue.let_leave(session, user_id, successor_id)
        await self.require_another_owner(user_id)
        # Whoever is about to add something of theirs has to wait, and is refused by its foreign key.
        user = await session.scalar(
            select(User)
            .where(User.id == user_id)
            .options(undefer_group("secret"), lazyload(User.roles))
            .with_for_update()
            .execution_options(populate_existing=True)
        )
        if user is None:
            raise ResourceNotFoundException("There is no such user.")
        if hashed_password is not None and user.hashed_password != hashed_password:
            raise ValidationFailedException.of("password", "Expected your present password.")
        await record_event(session, "user.erased", subject=user_id)
        await catalogue.erase(session, Person(user.id, user.email))
        session.expunge(user)
        await session.execute(delete(User).where(User.id == user_id), execution_options={"synchronize_session": False})

    async def require_password(self, user_id: UUID) -> None:
        """Refuse what a password confirms to an account that has none.

        Raises:
            ConflictException: it has none.
        """
        if await self.repository.session.scalar(select(User.hashed_password).where(User.id == user_id)) is None:
            raise ConflictException("There is no password to confirm it by.", problem=NO_PASSWORD)


def check_typed(user: User, typed: str) -> None:
    """Let pass whose address it is.

    Raises:
        ValidationFailedException: it is another one.
    """
    if normalize_email(typed) != user.email:
        raise ValidationFailedException.of("email", "Expected the user's own address.")


provide_people = create_service_provider(
    PeopleService,
    load=[
        selectinload(User.roles).options(
            joinedload(UserRole.role, innerjoin=True).options(load_only(Role.slug, Role.name))
        )
    ],
    uniquify=True,
    error_messages={
        "integrity": "The account cannot be changed like this.",
        "not_found": "There is no such user.",
    },
)
