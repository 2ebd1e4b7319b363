"""Routes of the caller's own notifications. Nobody sees another's, whatever they may do otherwise."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, delete, get, patch, post, put
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Body, FromPath, HeaderParameter, QueryParameter
from litestar.response import Stream
from litestar.status_codes import HTTP_200_OK
from sqlalchemy import ColumnElement

from tenantry.domain.notifications.models import Notification
from tenantry.domain.notifications.schemas import (
    NotificationEvent,
    NotificationPreferences,
    NotificationPreferencesPayload,
    NotificationRead,
    NotificationsReadPayload,
    NotificationUpdate,
    UnreadCount,
)
from tenantry.domain.notifications.service import (
    NotificationPreferenceService,
    NotificationService,
    provide_notifications,
    provide_preferences,
)
from tenantry.domain.notifications.stream import NotificationStreams
from tenantry.kernel.errors import ValidationFailedException
from tenantry.kernel.schema import Page, changes, in_utc
from tenantry.kernel.service import Injected, ListQuery, create_list_query, to_struct
from tenantry.tenancy.guards import principal_of
from tenantry.tenancy.request import request_transaction

__all__ = ("NotificationController",)

_EVENT_STREAM = "text/event-stream"


class NotificationController(Controller):
    """What has happened that concerns the caller."""

    path = "/notifications"
    tags = ["notifications"]
    dependencies = {"notifications": provide_notifications, "preferences": provide_preferences}

    @get(
        "/",
        operation_id="ListNotifications",
        summary="List my notifications",
        opt={"any_user": True},
        dependencies={
            "listing": create_list_query(
                sortable=("created_at", "kind"),
                searched=("kind",),
                default="created_at",
                descending=True,
                others=("unread", "kind"),
            )
        },
    )
    async def list_notifications(
        self,
        request: Request[Any, Any, Any],
        notifications: Injected[NotificationService],
        listing: Injected[ListQuery],
        unread: Annotated[
            bool | None, QueryParameter(description="Those that are not read yet, or those that are.")
        ] = None,
        kind: Annotated[
            str | None, QueryParameter(min_length=1, max_length=100, description="Of this kind: `team.member_added`.")
        ] = None,
    ) -> Page[NotificationRead]:
        """The caller's own, the newest first."""
        wanted: list[ColumnElement[bool]] = [Notification.user_id == principal_of(request).id]
        if unread is not None:
            wanted.append(Notification.read_at.is_(None) if unread else Notification.read_at.is_not(None))
        if kind is not None:
            wanted.append(Notification.kind == kind)
        return await notifications.page(listing, NotificationRead, *wanted)

    @get(
        "/unread-count",
        operation_id="CountUnreadNotifications",
        summary="Count my unread notifications",
        opt={"any_user": True},
    )
    async def count_unread(
        self, request: Request[Any, Any, Any], notifications: Injected[NotificationService]
    ) -> UnreadCount:
        """How many the caller has not read."""
        return UnreadCount(unread=await notifications.count_unread(principal_of(request).id))

    @post(
        "/read",
        operation_id="MarkNotificationsRead",
        summary="Mark my notifications read",
        status_code=HTTP_200_OK,
        opt={"any_user": True},
    )
    async def mark_all_read(
        self,
        request: Request[Any, Any, Any],
        notifications: Injected[NotificationService],
        data: Annotated[NotificationsReadPayload, Body()],
    ) -> UnreadCount:
        """Mark all up to one notification, or up to a moment; how many are left.

        What arrives meanwhile stays unread. By the notification that the caller saw last that is exact; by a moment,
        one that was made before it and is stored after it is marked as well.
        """
        if (data.notification_id is None) == (data.moment is None):
            raise ValidationFailedException.of("", "Expected either 'notificationId' or 'moment'.")
        user_id = principal_of(request).id
        await notifications.mark_until(
            user_id, notification_id=data.notification_id, moment=in_utc("moment", data.moment)
        )
        return UnreadCount(unread=await notifications.count_unread(user_id))

    @get(
        "/preferences",
        operation_id="GetNotificationPreferences",
        summary="Get what I want to be told",
        opt={"any_user": True},
    )
    async def get_preferences(
        self, request: Request[Any, Any, Any], preferences: Injected[NotificationPreferenceService]
    ) -> NotificationPreferences:
        """All kinds of notifications there are, and whether the caller wants each."""
        return NotificationPreferences(items=await preferences.read(principal_of(request).id))

    @put(
        "/preferences",
        operation_id="SetNotificationPreferences",
        summary="Choose what I want to be told",
        opt={"any_user": True},
    )
    async def set_preferences(
        self,
        request: Request[Any, Any, Any],
        preferences: Injected[NotificationPreferenceService],
        data: Annotated[NotificationPreferencesPayload, Body()],
    ) -> NotificationPreferences:
        """Replace what the caller has chosen. It holds for what happens from now on."""
        user_id = principal_of(request).id
        await preferences.choose(user_id, data.items)
        return NotificationPreferences(items=await preferences.read(user_id))

    @get(
        "/stream",
        operation_id="FollowNotifications",
        summary="Follow my notifications",
        opt={"any_user": True, "endless": True},
        responses={
            # The schema is that of each event, as tools read it for this media type before OpenAPI 3.2.
            HTTP_200_OK: ResponseSpec(
                NotificationEvent,
                media_type=_EVENT_STREAM,
                generate_examples=False,
                description="Events `ready`, with the number of unread ones, and `notification`.",
            ),
        },
    )
    async def follow_notifications(
        self,
        request: Request[Any, Any, Any],
        last_event_id: Annotated[
            str | None,
            HeaderParameter(
                name="Last-Event-ID",
                pattern=r"^[0-9]{1,18}$",
                description="The id of the last event that the client has seen: what came after it follows.",
            ),
        ] = None,
    ) -> Stream:
        """Server-sent events: `ready` at once, then a `notification` for each that the caller is given.

        A client that comes back with Last-Event-ID is told what it has missed and nothing twice. `ready` says that a
        client begins anew, and should read the list. A stream may break at any time, and lasts no longer than its
        token; 429 where too many are open.
        """
        streams: NotificationStreams = request.app.state.notification_streams
        # The guards' transaction: what follows is read in others, and none is open while nothing is read.
        await request_transaction(request).pause()
        pieces = streams.follow(request, None if last_event_id is None else int(last_event_id))
        # Before the answer begins, so that a refusal is still an error answer.
        first = await anext(pieces)
        return Stream(
            _after(first, pieces),
            media_type=_EVENT_STREAM,
            # nginx would keep the events until it has a page of them.
            headers={"X-Accel-Buffering": "no"},
        )

    @patch(
        "/{notification_id:uuid}",
        operation_id="UpdateNotification",
        summary="Mark a notification",
        opt={"any_user": True},
    )
    async def update_notification(
        self,
        request: Request[Any, Any, Any],
        notifications: Injected[NotificationService],
        notification_id: FromPath[UUID],
        data: Annotated[NotificationUpdate, Body()],
    ) -> NotificationRead:
        """Mark one of the caller's own as read, or as not read after all."""
        user_id, read = principal_of(request).id, changes(data).get("is_read")
        if read is None:
            return to_struct(await notifications.own(user_id, notification_id), NotificationRead)
        return to_struct(await notifications.mark(user_id, notification_id, read=read), NotificationRead)

    @delete(
        "/{notification_id:uuid}",
        operation_id="DeleteNotification",
        summary="Delete a notification",
        opt={"any_user": True},
    )
    async def delete_notification(
        self,
        request: Request[Any, Any, Any],
        notifications: Injected[NotificationService],
        notification_id: FromPath[UUID],
    ) -> None:
        """Delete one of the caller's own."""
        await notifications.remove(principal_of(request).id, notification_id)


async def _after(first: bytes, pieces: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async with aclosing(pieces):
        yield first
        async for piece in pieces:
            yield piece
