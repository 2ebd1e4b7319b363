"""Events: what they are called, what they say, and which jobs they are handed to.

A package declares what its services record in its manifest, each with the struct of its payload:

    class MemberAdded(Payload):
        user_id: UUID
        role: Literal["owner", "admin", "member"]

    FEATURE = Feature(name="teams", events=(Event("team.member_added", "A user was put into a team.", MemberAdded),))

and another one, or the same, which job is enqueued with it: `handlers={"team.member_added": greet}`, or `"*"` for all
of them. Such a job has one argument: `async def greet(event: RecordedEvent, users: UserService) -> None`.
A package whose rows follow from events (`listener=`) has a function called with each, in the transaction that records
it: a job for every event of every organization would be too many where few of them matter.

Of which of them people are told, and who, a manifest says as well: `tenantry.events.notification`.

A payload holds ids, numbers, truth values and words of our own (`Literal`, `CodeName`), never text of anybody's: what a
trail says of a person is gone with the person's account, without a row of the trail being changed.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import msgspec
from msgspec import inspect

from tenantry.events.notification import NotificationKind, check_kind
from tenantry.jobs.definition import Job
from tenantry.kernel.current import Current

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.kernel.feature import Feature, Permission

__all__ = (
    "EVERY",
    "NOTIFIED",
    "CodeName",
    "Event",
    "EventCatalogue",
    "Payload",
    "RecordedEvent",
    "current_catalogue",
    "use_catalogue",
    "using_catalogue",
)

EVERY = "*"
"""In place of a name: all events."""

NOTIFIED = "notified"
"""In place of a name: the events of which people are told (`Feature.notifications`)."""

Listener = Callable[["AsyncSession", "RecordedEvent"], Awaitable[None]]

_NAME = re.compile(r"[a-z][a-z_]{0,40}\.[a-z][a-z_]{0,40}")


_OURS = "of code"

CodeName = Annotated[str, msgspec.Meta(max_length=200, pattern=r"^[A-Za-z0-9_.:/{}-]+$(?!\n)", extra={_OURS: True})]
"""A name that code gives and nobody types, of which there are too many for a `Literal`: that of a route, say."""


class Payload(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What an event says besides its subject; as it is, nothing."""


class RecordedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event, as the jobs that it is handed to get it."""

    id: UUID
    """The same in every attempt of every job."""
    name: str
    actor: str
    """`user:<id>`, `api_key:<id>`, `operator` or `operator:<id>`, `job:<name>` or `system`."""
    subject: UUID
    """What it happened to: the first word of its name says what that is."""
    payload: dict[str, Any]
    """Of JSON."""
    request_id: str | None
    occurred_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class Event:
    """Something that can happen, named `<resource>.<verb>`, the verb in the past.

    Raises:
        ValueError: it is not named like that.
        TypeError: its payload could hold somebody's text.
    """

    name: str
    description: str
    payload: type[Payload] = Payload

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"event {self.name!r}: expected a name such as 'team.member_added'")
        described = inspect.type_info(self.payload)
        if not isinstance(described, inspect.StructType):
            raise TypeError(f"event {self.name!r}: expected a struct as its payload, got {self.payload!r}")
        for field in described.fields:
            if not _is_impersonal(field.type):
                raise TypeError(
                    f"event {self.name!r}: its field {field.name!r} could hold personal data; expected an id, a number,"
                    " a truth value, a Literal, or a list of these"
                )


_IMPERSONAL = (inspect.UUIDType, inspect.IntType, inspect.BoolType, inspect.NoneType, inspect.LiteralType)


def _is_impersonal(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.Metadata):
        return bool((kind.extra or {}).get(_OURS)) or _is_impersonal(kind.type)
    if isinstance(kind, inspect.UnionType):
        return all(_is_impersonal(each) for each in kind.types)
    if isinstance(kind, inspect.ListType | inspect.VarTupleType):
        return _is_impersonal(kind.item_type)
    return isinstance(kind, _IMPERSONAL)


class EventCatalogue:
    """All events, which jobs each is handed to, and who is told of it: the union of all features' manifests."""

    def __init__(self, features: Iterable[Feature]) -> None:
        """Read the manifests.

        Raises:
            ValueError: two features declare one event, a job is to handle one that nobody declares, or people are to
                be told of one who cannot be found.
            TypeError: a handler is no job that takes an event, or a notification is none.
        """
        features = tuple(features)
        events: dict[str, Event] = {}
        for feature in features:
            for event in feature.events:
                if event.name in events:
                    raise ValueError(f"the event {event.name!r} is declared twice")
                events[event.name] = event
        self.events: Mapping[str, Event] = events
        self.permissions: Mapping[str, Permission] = {
            permission.name: permission for feature in features for permission in feature.permissions
        }
        kinds: dict[str, NotificationKind] = {}
        for kind in (each for feature in features for each in feature.notifications):
            checked = check_kind(kind, events, self.permissions)
            if kinds.setdefault(checked.name, checked) is not checked:
                raise ValueError(f"two notifications tell of {checked.name!r}")
        self.notifications: Mapping[str, NotificationKind] = kinds
        handlers: dict[str, list[Job]] = {}
        for feature in features:
            for name, job in feature.handlers.items():
                if name not in {EVERY, NOTIFIED} and name not in events:
                    raise ValueError(f"feature {feature.name!r}: there is no event {name!r} to handle")
                _check_handler(job)
                handlers.setdefault(name, []).append(job)
        self.listeners: tuple[Listener, ...] = tuple(
            feature.listener for feature in features if feature.listener is not None
        )
        """What is called with every event, in the transaction that records it."""
        every, notified = handlers.get(EVERY, []), handlers.get(NOTIFIED, [])
        self._handlers = {
            name: (*handlers.get(name, ()), *(notified if name in kinds else ()), *every) for name in events
        }

    def event(self, name: str) -> Event:
        """The event of that name.

        Raises:
            LookupError: no feature declares it.
        """
        if (found := self.events.get(name)) is None:
            raise LookupError(f"no feature declares an event {name!r}")
        return found

    def handlers(self, name: str) -> tuple[Job, ...]:
        """The jobs that are enqueued with it."""
        return self._handlers[name]


def _check_handler(job: Any) -> None:
    if not isinstance(job, Job) or job.platform:
        raise TypeError(f"expected a tenant's job to handle an event, got {job!r}")
    arguments = [(field.name, field.type) for field in msgspec.structs.fields(job.arguments)]
    if arguments != [("event", RecordedEvent)]:
        raise TypeError(f"job {job.name!r}: expected 'event: RecordedEvent' as its one argument, to handle an event")


_events: Current[EventCatalogue] = Current("catalogue of events")
use_catalogue, using_catalogue, current_catalogue = _events.use, _events.using, _events.get
