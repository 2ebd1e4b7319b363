"""Telling people of events, and what they do with it."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import ARRAY, Uuid, and_, any_, cast, delete, exists, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from uuid_utils.compat import uuid7

from tenantry.domain.identity.users.models import User
from tenantry.domain.notifications.models import Notification, NotificationInbox, NotificationPreference
from tenantry.domain.notifications.schemas import NotificationPreferenceRead
from tenantry.events.definition import current_catalogue
from tenantry.events.record import user_actor
from tenantry.kernel.errors import FieldError, ResourceNotFoundException, ValidationFailedException
from tenantry.kernel.service import Service, create_service_provider

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.domain.notifications.schemas import NotificationPreferenceChoice
    from tenantry.events.definition import RecordedEvent
    from tenantry.events.notification import NotificationKind

__all__ = (
    "NotificationPreferenceService",
    "NotificationService",
    "provide_notifications",
    "provide_preferences",
    "tell",
)

_CHUNK = 1000
"""Rows that one statement inserts."""


class NotificationService(Service[Notification]):
    """One user's notifications: whose they are, every method is told."""

    class Repo(SQLAlchemyAsyncRepository[Notification]):
        model_type = Notification

    repository_type = Repo

    async def own(self, user_id: UUID, notification_id: UUID) -> Notification:
        """One of the user's.

        Raises:
            ResourceNotFoundException: there is none of that id, or it is somebody else's.
        """
        found = await self._find(user_id, notification_id)
        if found is None:
            raise ResourceNotFoundException("There is no such notification.")
        return found

    async def _find(self, user_id: UUID, notification_id: UUID) -> Notification | None:
        return await self.get_one_or_none(Notification.id == notification_id, Notification.user_id == user_id)

    async def mark(self, user_id: UUID, notification_id: UUID, *, read: bool) -> Notification:
        """Say that the user has read it, or has not. The time at which it was first read stays.

        Raises:
            ResourceNotFoundException: as `own`.
        """
        found = await self.own(user_id, notification_id)
        if read != (found.read_at is not None):
            found.read_at = datetime.datetime.now(datetime.UTC) if read else None
            await self.flush()
        return found

    async def mark_until(
        self, user_id: UUID, *, notification_id: UUID | None = None, moment: datetime.datetime | None = None
    ) -> None:
        """Say that the user has read all up to one, or up to a moment; exactly one of the two is given.

        What arrives meanwhile is after either, and stays unread.

        Raises:
            ValidationFailedException: the user has no such notification.
        """
        if notification_id is not None:
            seen = await self._find(user_id, notification_id)
            if seen is None:
                raise ValidationFailedException.of("notificationId", "Expected the id of one of your notifications.")
            reached = Notification.position <= seen.position
        else:
            reached = Notification.created_at <= moment
        await self.repository.session.execute(
            update(Notification)
            .where(Notification.user_id == user_id, Notification.read_at.is_(None), reached)
            .values(read_at=func.now()),
            execution_options={"synchronize_session": False},
        )

    async def count_unread(self, user_id: UUID) -> int:
        unread = select(func.count()).where(Notification.user_id == user_id, Notification.read_at.is_(None))
        return await self.repository.session.scalar(unread) or 0

    async def remove(self, user_id: UUID, notification_id: UUID) -> None:
        """Delete one.

        Raises:
            ResourceNotFoundException: as `own`.
        """
        await self.repository.session.delete(await self.own(user_id, notification_id))
        await self.flush()

    async def position(self, user_id: UUID) -> int:
        """That of the last notification which the user was given; 0 before the first."""
        found = select(NotificationInbox.position).where(NotificationInbox.id == user_id)
        return await self.repository.session.scalar(found) or 0

    async def after(self, user_id: UUID, position: int, *, limit: int) -> Sequence[Notification]:
        """What the user was given after that position, the first one first."""
        found = (
            select(Notification)
            .where(Notification.user_id == user_id, Notification.position > position)
            .order_by(Notification.position)
            .limit(limit)
        )
        return list(await self.repository.session.scalars(found))


class NotificationPreferenceService(Service[NotificationPreference]):
    """What one user wants to be told."""

    class Repo(SQLAlchemyAsyncRepository[NotificationPreference]):
        model_type = NotificationPreference

    repository_type = Repo

    async def read(self, user_id: UUID) -> list[NotificationPreferenceRead]:
        """All kinds there are, by name, with what the user has chosen or else the kind's default."""
        chosen = {row.kind: row.in_app for row in await self.get_many(NotificationPreference.user_id == user_id)}
        return [
            NotificationPreferenceRead(
                kind=kind.name,
                description=kind.description,
                in_app=chosen.get(kind.name, kind.in_app),
                default=kind.in_app,
            )
            for kind in sorted(_kinds().values(), key=lambda kind: kind.name)
        ]

    async def choose(self, user_id: UUID, wanted: Sequence[NotificationPreferenceChoice]) -> None:
        """Replace what the user has chosen. A kind that no feature declares any more keeps its row.

        Raises:
            ValidationFailedException: there is no such kind, or it is there twice.
        """
        known = _kinds()
        errors, chosen = [], dict[str, bool]()
        for number, choice in enumerate(wanted):
            if choice.kind not in known:
                errors.append(FieldError(field=f"items.{number}.kind", message="There is no such kind."))
            elif choice.kind in chosen:
                errors.append(FieldError(field=f"items.{number}.kind", message="Expected each kind once."))
            chosen[choice.kind] = choice.in_app
        if errors:
            raise ValidationFailedException(errors=errors)
        session = self.repository.session
        # The account's row is the lock: of two at the same moment, all that one of them has chosen holds.
        await session.execute(select(User.id).where(User.id == user_id).with_for_update(key_share=True))
        await session.execute(
            delete(NotificationPreference).where(
                NotificationPreference.user_id == user_id, NotificationPreference.kind.in_(known)
            ),
            execution_options={"synchronize_session": False},
        )
        if chosen:
            await session.execute(
                insert(NotificationPreference),
                [{"user_id": user_id, "kind": kind, "in_app": in_app} for kind, in_app in chosen.items()],
            )


def _kinds() -> Mapping[str, NotificationKind]:
    return current_catalogue().notifications


async def tell(
    session: AsyncSession, kind: NotificationKind, event: RecordedEvent, recipients: Collection[UUID]
) -> list[UUID]:
    """Give each of these users a notification; those who were given one now.

    Left out are whose doing it was, accounts that are not active, who does not want this kind, and who has been told of
    the event before.
    """
    others = [user_id for user_id in recipients if user_actor(user_id) != event.actor]
    if not others:
        return []
    wanted = func.coalesce(NotificationPreference.in_app, kind.in_app)
    told = (
        select(User.id, literal(1))
        .outerjoin(
            NotificationPreference,
            and_(NotificationPreference.user_id == User.id, NotificationPreference.kind == kind.name),
        )
        .where(
            # One parameter, however many they are.
            User.id == any_(cast(others, ARRAY(Uuid))),
            User.is_active,
            wanted,
            ~exists().where(Notification.user_id == User.id, Notification.event_id == event.id),
        )
        # In one order, so that two events at the same moment wait for each other in no circle.
        .order_by(User.id)
    )
    place = insert(NotificationInbox).from_select(["id", "position"], told)
    placed = (
        await session.execute(
            place.on_conflict_do_update(
                index_elements=[NotificationInbox.id], set_={"position": NotificationInbox.position + 1}
            ).returning(NotificationInbox.id, NotificationInbox.position)
        )
    ).all()
    given: list[UUID] = []
    for start in range(0, len(placed), _CHUNK):
        rows = [
            {
                "id": uuid7(),
                "user_id": user_id,
                "position": position,
                "kind": kind.name,
                "event_id": event.id,
                "actor": event.actor,
                "subject": event.subject,
                "payload": event.payload,
            }
            for user_id, position in placed[start : start + _CHUNK]
        ]
        # Another attempt at the same event may have come first, and have held these users' inboxes until now.
        made = insert(Notification).on_conflict_do_nothing(index_elements=["user_id", "event_id"])
        given.extend(await session.scalars(made.returning(Notification.user_id), rows))
    return given


provide_notifications = create_service_provider(
    NotificationService, error_messages={"not_found": "There is no such notification."}
)
provide_preferences = create_service_provider(NotificationPreferenceService)
