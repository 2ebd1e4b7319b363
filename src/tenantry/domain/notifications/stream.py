"""A user's notifications as they come: server-sent events (WHATWG HTML §9.2)."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from advanced_alchemy.exceptions import AdvancedAlchemyError
from litestar.response.sse import ServerSentEventMessage

from tenantry.domain.notifications.schemas import NotificationRead, UnreadCount
from tenantry.domain.notifications.service import NotificationService
from tenantry.kernel.errors import NotAuthenticatedException
from tenantry.kernel.service import to_struct
from tenantry.tenancy.bulkheads import Bulkhead
from tenantry.tenancy.database import LOST
from tenantry.tenancy.guards import principal_of
from tenantry.tenancy.request import tenant_request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from litestar import Request

    from tenantry.domain.notifications.listeners import Listeners, Seat
    from tenantry.domain.notifications.models import Notification

__all__ = ("NotificationStreams",)

_RETRY = 2000
"""Milliseconds after which a client whose stream broke comes back."""
_PAGE = 100
"""Notifications that one look reads."""
_LOOKS = 4
"""Looks at a time. An announcement wakes everybody at once: the pool is for the other requests as well."""
_SHARE = 2
"""Of them one organization's: one with hundreds of streams keeps nobody else's waiting."""
_QUEUE = 100_000
"""Looks that wait: no more than there may be streams."""
_PATIENCE = 60.0
"""Seconds."""

_log = structlog.get_logger(__name__)
_encode = msgspec.json.Encoder().encode


class _Seen(msgspec.Struct, frozen=True):
    """What one look has found."""

    position: int
    """Of the last one that the user was given."""
    notifications: Sequence[Notification]
    unread: int | None = None
    """Where it was asked for."""


class NotificationStreams:
    """Tells users of what they are given.

    A stream holds no connection between two looks, and whoever listens slowly holds none either. It looks when it is
    woken, and else after each silence; each look asks anew whether the caller may still see it.
    """

    def __init__(
        self, listeners: Listeners, *, lifetime: float, keep_alive: float = 15.0, look_interval: float = 5.0
    ) -> None:
        """Times are in seconds.

        A stream ends after `lifetime` at the latest, so that clients spread anew over processes. `keep_alive` is the
        longest silence: proxies cut what is silent for longer. `look_interval` is for when hints are not heard.
        """
        self._listeners = listeners
        self._lifetime = lifetime
        self._keep_alive = keep_alive
        self._look_interval = look_interval
        self._looks = Bulkhead("looks", _LOOKS, queue=_QUEUE, patience=_PATIENCE)

    async def follow(self, request: Request[Any, Any, Any], last_id: int | None) -> AsyncGenerator[bytes, None]:
        """The events, from after `last_id`, or from now on. The first piece comes once the first look is over.

        `ready` with the number of unread ones where `last_id` is none or none of ours, then a `notification` for each.
        It ends when the session, the token or the organization does, when the database is away and when this process
        ends: whoever comes back is told by an answer what it was.

        Raises:
            TooManyRequestsException: there are too many streams.
            NotAuthenticatedException: the session has ended.
        """
        asked = tenant_request(request)
        tenant, claims = asked.tenant, asked.claims
        if tenant is None or claims is None:
            raise NotAuthenticatedException
        loop = asyncio.get_running_loop()
        # The token's end is a time of day, all else is measured.
        ends_at = loop.time() + min(self._lifetime, claims.exp - time.time())
        with self._listeners.seat(tenant.id, principal_of(request).id) as seat:
            found = await self._look(request, last_id)
            if found is None:
                raise NotAuthenticatedException("The session has ended.", invalid_token=True)
            yield ServerSentEventMessage(data=None, retry=_RETRY).encode()
            if found.unread is not None:
                yield _event("ready", found.position, UnreadCount(unread=found.unread))
                last_id = found.position
            silent_since = loop.time()
            while True:
                for row in found.notifications:
                    yield _event("notification", row.position, to_struct(row, NotificationRead))
                    last_id, silent_since = row.position, loop.time()
                if len(found.notifications) < _PAGE:
                    await self._wait(seat, hears=self._listeners.hears(tenant.id), until=ends_at)
                if seat.is_over or loop.time() >= ends_at:
                    return
                try:
                    again = await self._look(request, last_id)
                except (*LOST, AdvancedAlchemyError) as error:
                    _log.warning("a stream of notifications ended for want of the database", error=repr(error))
                    return
                if again is None:
                    return
                found = again
                if not found.notifications and loop.time() - silent_since >= self._keep_alive:
                    yield ServerSentEventMessage(data=None, comment="still there").encode()
                    silent_since = loop.time()

    async def _wait(self, seat: Seat, *, hears: bool, until: float) -> None:
        longest = self._keep_alive if hears else min(self._look_interval, self._keep_alive)
        await seat.woken(max(0.0, min(longest, until - asyncio.get_running_loop().time())))

    async def _look(self, request: Request[Any, Any, Any], last_id: int | None) -> _Seen | None:
        """What there is after `last_id`, in a transaction of its own; None if the caller may not see it any more."""
        transaction = tenant_request(request)
        if transaction.tenant is None or transaction.claims is None or transaction.claims.exp <= time.time():
            return None
        if not self._listeners.may_serve(transaction.tenant.id):
            return None
        tenant_id = transaction.tenant.id
        if not self._looks.take(tenant_id, _SHARE):
            await self._looks.wait(tenant_id, _SHARE, plan=transaction.tenant.plan.slug)
        try:
            try:
                principal = await request.route_handler.opt["load_principal"](request, transaction)
                if principal is None:
                    return None
                service = NotificationService(session=await transaction.session())
                position = await service.position(principal.id)
                if last_id is None or last_id > position:
                    # The latter where the organization was brought back to an earlier day: the client reads anew.
                    return _Seen(position, (), await service.count_unread(principal.id))
                return _Seen(position, await service.after(principal.id, last_id, limit=_PAGE))
            except asyncio.CancelledError:
                # The client has gone, perhaps in the middle of a statement: nobody else is to have this connection.
                await transaction.close(failed=True)
                raise
            finally:
                await transaction.pause()
        finally:
            self._looks.give(tenant_id)


def _event(kind: str, position: int, told: UnreadCount | NotificationRead) -> bytes:
    # JSON has no line break, which would end the field.
    return ServerSentEventMessage(data=_encode(told), event=kind, id=str(position)).encode()
