"""Of which events people are told, and who: declared in manifests, beside the events.

    FEATURE = Feature(
        name="teams",
        events=(Event("team.member_added", "A user was put into a team.", MemberPlaced),),
        notifications=(
            NotificationKind("team.member_added", "You were put into a team.", recipients=NamedIn("user_id")),
        ),
    )

Whose doing it was is never told of it, and neither is an account that is deactivated, whatever `recipients` says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.events.definition import Event, RecordedEvent

__all__ = ("NamedIn", "NotificationKind", "Recipients", "check_kind", "the_subject")

Recipients = Callable[["AsyncSession", "RecordedEvent"], Awaitable[Collection[UUID]]]
"""Who is told of an event: ids of users, asked for in a job after the event, in its tenant's scope.

One that has a method `check(event, permissions)` is asked by it when the process starts, and raises ValueError where it
cannot answer.
"""


@dataclass(frozen=True, slots=True)
class NotificationKind:
    """An event of which people are told."""

    name: str
    """The event's."""
    description: str
    """What has happened, as the person who is told would say it; the page of preferences shows it."""
    recipients: Recipients
    in_app: bool = True
    """Whether those are told who have not chosen."""


async def the_subject(_: AsyncSession, event: RecordedEvent) -> Collection[UUID]:
    """Recipients: the user to whom it happened."""
    return {event.subject}


@dataclass(frozen=True, slots=True)
class NamedIn:
    """Recipients: the user, or the users, whom a field of the event's payload names."""

    field: str

    def check(self, event: Event, _: Collection[str]) -> None:
        """Raises ValueError where the payload has no such field."""
        if self.field not in {field.name for field in msgspec.structs.fields(event.payload)}:
            raise ValueError(f"the payload of {event.name!r} has no field {self.field!r}")

    async def __call__(self, _: AsyncSession, event: RecordedEvent) -> Collection[UUID]:
        found = event.payload.get(self.field)
        return {UUID(each) for each in (found if isinstance(found, list) else [found]) if each is not None}


def check_kind(kind: Any, events: Mapping[str, Event], permissions: Collection[str]) -> NotificationKind:
    """A kind that a manifest declares, if people can be told so.

    Raises:
        TypeError: it is none.
        ValueError: there is no such event, or its recipients cannot be found.
    """
    if not isinstance(kind, NotificationKind):
        raise TypeError(f"expected a NotificationKind among the notifications, got {kind!r}")
    if (event := events.get(kind.name)) is None:
        raise ValueError(f"there is no event {kind.name!r} to tell of")
    check = getattr(kind.recipients, "check", None)
    if check is not None:
        check(event, permissions)
    return kind
