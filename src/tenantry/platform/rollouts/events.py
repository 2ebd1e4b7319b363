"""A rollout's progress as it happens: server-sent events (WHATWG HTML §9.2)."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from advanced_alchemy.exceptions import AdvancedAlchemyError
from litestar.response.sse import ServerSentEventMessage

from tenantry.platform.access import load_operator_principal
from tenantry.platform.rollouts.service import RolloutService
from tenantry.tenancy.database import LOST
from tenantry.tenancy.request import request_transaction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from litestar import Request

    from tenantry.kernel.http.shutdown import Shutdown
    from tenantry.platform.rollouts.schemas import RolloutDetail

__all__ = ("PERMISSION", "RolloutEvents", "has_ended", "state_of")

PERMISSION = "rollouts:read"

_RETRY = 2000
"""Milliseconds after which a client whose stream broke comes back."""

_log = structlog.get_logger(__name__)
_encode = msgspec.json.Encoder().encode


def has_ended(rollout: RolloutDetail) -> bool:
    """Whether nothing follows, unless somebody resumes it."""
    return rollout.status != "running"


def state_of(rollout: RolloutDetail) -> str:
    """The id of the event that tells of this state; the same in every process, so that a client may change over.

    Rate and estimated end are left out: they change with every second.
    """
    told = (rollout.status, rollout.halted_reason, rollout.finished_at, rollout.waves)
    return hashlib.blake2b(_encode(told), digest_size=12).hexdigest()


class RolloutEvents:
    """Tells of changes. Between two looks it holds no connection, and whoever listens slowly holds none either."""

    def __init__(self, shutdown: Shutdown, *, look_interval: float = 0.5, keep_alive: float = 15.0) -> None:
        """Times are in seconds. `keep_alive` is the longest silence: proxies cut what is silent for longer."""
        self._shutdown = shutdown
        self._look_interval = look_interval
        self._keep_alive = keep_alive

    async def look(self, request: Request[Any, Any, Any], rollout_id: UUID) -> RolloutDetail | None:
        """The rollout as it is now, in a transaction of its own; None if the caller may not see it any more.

        Raises:
            ResourceNotFoundException: there is none of that id.
        """
        transaction = request_transaction(request)
        if transaction.claims is None or transaction.claims.exp <= time.time():
            return None
        try:
            operator = await load_operator_principal(request, transaction)
            if operator is None or PERMISSION not in operator.permissions:
                return None
            return await RolloutService(session=await transaction.session()).detail(rollout_id)
        except asyncio.CancelledError:
            # The client has gone, perhaps in the middle of a statement: nobody else is to have this connection.
            await transaction.close(failed=True)
            raise
        finally:
            await transaction.pause()

    async def stream(
        self, request: Request[Any, Any, Any], first: RolloutDetail, last_id: str | None
    ) -> AsyncIterator[bytes]:
        """`progress` whenever something has changed, `end` when the rollout has ended; a comment where nothing does.

        Each event holds the whole state. It ends, without `end`, when the caller may not see it any more, when the
        database is away and when this process ends: whoever comes back is told by an answer what it was.
        """
        loop = asyncio.get_running_loop()
        yield ServerSentEventMessage(data=None, retry=_RETRY).encode()
        found: RolloutDetail | None = first
        silent_since = loop.time()
        while found is not None:
            state = state_of(found)
            if has_ended(found):
                yield _event("end", state, found)
                return
            if state != last_id:
                yield _event("progress", state, found)
                last_id, silent_since = state, loop.time()
            elif loop.time() - silent_since >= self._keep_alive:
                yield ServerSentEventMessage(data=None, comment="still there").encode()
                silent_since = loop.time()
            if await self._shutdown.within(self._look_interval):
                return
            try:
                found = await self.look(request, first.id)
            except (*LOST, AdvancedAlchemyError) as error:
                _log.warning("a stream of events ended for want of the database", error=repr(error))
                return


def _event(kind: str, state: str, rollout: RolloutDetail) -> bytes:
    # JSON has no line break, which would end the field.
    return ServerSentEventMessage(data=_encode(rollout), event=kind, id=state).encode()
