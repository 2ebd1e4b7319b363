"""What an organization keeps of one person: declared in manifests, so that it can be handed out and erased.

    FEATURE = Feature(
        name="teams",
        personal_data=(PersonalData("memberships", TeamMember, MembershipCopy, by=("user_id",)),),
        leaving=hand_over_teams,
    )

Rows go with the person's account by what their foreign keys say, CASCADE or SET NULL: that is the erasure, and the
database does it, also for rows that are written at the same moment. What no foreign key finds is for `erasing`.
A test asks of every foreign key to an account that it is declared here (docs/personal-data.md).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, or_

from tenantry.kernel.current import Current

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm.interfaces import ORMOption

    from tenantry.kernel.feature import Feature

__all__ = (
    "EraseHook",
    "LeaveHook",
    "NotCopied",
    "Person",
    "PersonalCatalogue",
    "PersonalData",
    "current_personal",
    "use_personal",
    "using_personal",
)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with an account, as hooks are told of them."""

    id: UUID
    email: str
    """Normalized."""


LeaveHook = Callable[["AsyncSession", UUID, UUID | None], Awaitable[None]]
"""Is asked before a user is shut out or erased: (session, user, successor).

It hands over to the successor, an active user, what would otherwise be nobody's; without one it raises
ConflictException. It locks what it looks at.
"""

EraseHook = Callable[["AsyncSession", Person], Awaitable[None]]
"""Removes what is a person's and no foreign key finds, before their account is deleted, in that transaction."""


@dataclass(frozen=True, slots=True)
class PersonalData:
    """Rows of a table that are about a person: a section of the copy of their data.

    Raises:
        TypeError: nothing says which rows those are.
    """

    section: str
    """Its name in the copy, in camelCase, for good."""
    model: type[Any]
    struct: type[msgspec.Struct]
    """What of a row is in the copy: no secret, and as little of others as possible."""
    by: tuple[str, ...] = field(default=(), kw_only=True)
    """Attributes, foreign keys to the account: the rows in which one of them is the person."""
    where: Callable[[Person], ColumnElement[bool]] | None = field(default=None, kw_only=True)
    """Which rows, where it takes more than that. It can be answered by an index."""
    load: tuple[ORMOption, ...] = field(default=(), kw_only=True)
    """What the struct needs besides."""

    def __post_init__(self) -> None:
        if not self.by and self.where is None:
            raise TypeError(f"section {self.section!r}: expected `by` or `where`")

    def condition(self, person: Person) -> ColumnElement[bool]:
        """Of the person's rows."""
        if self.where is not None:
            return self.where(person)
        return or_(*(getattr(self.model, name) == person.id for name in self.by))


@dataclass(frozen=True, slots=True)
class NotCopied:
    """Foreign keys to the account whose rows are in no section, and why."""

    model: type[Any]
    by: tuple[str, ...]
    reason: str


class PersonalCatalogue:
    """What all features keep of people: the union of their manifests."""

    def __init__(self, features: Iterable[Feature]) -> None:
        """Read the manifests.

        Raises:
            ValueError: two of them declare a section of one name.
            TypeError: something among the personal data is none.
        """
        features = tuple(features)
        sections: dict[str, PersonalData] = {}
        exceptions: list[NotCopied] = []
        for feature in features:
            for each in feature.personal_data:
                if isinstance(each, NotCopied):
                    exceptions.append(each)
                elif not isinstance(each, PersonalData):
                    raise TypeError(f"feature {feature.name!r}: expected PersonalData or NotCopied, got {each!r}")
                elif sections.setdefault(each.section, each) is not each:
                    raise ValueError(f"the section {each.section!r} is declared twice")
        self.sections = tuple(sections.values())
        self.exceptions = tuple(exceptions)
        self._leaving = tuple(feature.leaving for feature in features if feature.leaving is not None)
        self._erasing = tuple(feature.erasing for feature in features if feature.erasing is not None)

    async def let_leave(self, session: AsyncSession, user_id: UUID, successor_id: UUID | None = None) -> None:
        """See to it that nothing is left without its owner when the user is shut out or erased.

        Raises:
            ConflictException: something would be; the problem names it.
            ValidationFailedException: the successor is no active user.
        """
        for hook in self._leaving:
            await hook(session, user_id, successor_id)

    async def erase(self, session: AsyncSession, person: Person) -> None:
        """Remove what no foreign key finds. The account, and with it the rest, is for the caller to delete."""
        for hook in self._erasing:
            await hook(session, person)


_personal: Current[PersonalCatalogue] = Current("catalogue of personal data")
use_personal, using_personal, current_personal = _personal.use, _personal.using, _personal.get
