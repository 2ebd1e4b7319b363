"""A brake on what strangers have mailed: for each address, each network and the whole deployment, in an hour.

Counted in Redis, which refuses a flood before the database hears of it, and in the control plane, in the transaction
that has the mail sent: what Redis forgets, or does not hear while it is away, is counted there all the same.
"""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from prometheus_client import Counter
from redis.exceptions import RedisError
from sqlalchemy import func, select, text
from uuid_utils.compat import uuid7

from tenantry.kernel.errors import TooManyRequestsException
from tenantry.platform.strangers.models import PublicRequest
from tenantry.tenancy.redis import platform_key

if TYPE_CHECKING:
    from uuid import UUID

    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ("Brake", "Limits")

_WINDOW = 3600
"""Seconds."""

_log = structlog.get_logger(__name__)

_refused = Counter(
    "tenantry_public_requests_refused", "Mails that strangers asked for in vain, by what was used up.", ("kind", "by")
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Mails in an hour."""

    address: int
    client: int
    deployment: int


_REFUSALS = {
    "address": "Enough mail was sent to this address for now.",
    "client": "Enough mail was asked for from this network for now.",
    "deployment": "Enough mail was asked for by everybody together for now.",
}


class Brake:
    """Counts requests of one kind.

    They are counted before anything is looked up, whether or not there is anything to find: the brake tells nothing.
    """

    def __init__(self, redis: Redis, kind: str, limits: Limits) -> None:
        """`kind` is one of `PUBLIC_KINDS`."""
        self._redis = redis
        self._kind = kind
        self._limits = {"address": limits.address, "client": limits.client, "deployment": limits.deployment}

    async def check(self, address: str, client: str | None) -> None:
        """Count a request in Redis, and refuse it where that makes too many.

        Args:
            address: normalized, to whom the mail would be.
            client: who asks, None where the network does not tell one from another.

        Raises:
            TooManyRequestsException: with the seconds to wait.
        """
        # Digests: keys are listed in places where addresses of people have no business.
        keys = {"address": platform_key("public", self._kind, "address", hashlib.sha256(address.encode()).hexdigest())}
        if client is not None:
            keys["client"] = platform_key("public", self._kind, "client", hashlib.sha256(client.encode()).hexdigest())
        keys["deployment"] = platform_key("public", self._kind, "all")
        try:
            async with self._redis.pipeline(transaction=True) as pipeline:
                for key in keys.values():
                    pipeline.incr(key)
                    pipeline.expire(key, _WINDOW, nx=True)
                    pipeline.ttl(key)
                found = await pipeline.execute()
            over = [
                (by, int(left))
                for by, count, left in zip(keys, found[::3], found[2::3], strict=True)
                if int(count) > self._limits[by]
            ]
            if over and over[0][0] != "deployment":
                # What one network is refused is not to use up everybody's share.
                await self._redis.decr(keys["deployment"])
        except (RedisError, OSError, TimeoutError) as error:
            _log.warning("public requests are counted in the database alone", kind=self._kind, error=repr(error))
            return
        if over:
            self._refuse(*over[0])

    async def note(self, session: AsyncSession, address: str, client: str | None) -> UUID:
        """Count a request in the control plane, and refuse it where that makes too many; its id.

        Of several at one moment, a few too many may pass: they do not see each other's rows.

        Raises:
            TooManyRequestsException: with the seconds to wait.
        """
        mine, theirs = (
            await session.execute(
                select(
                    func.platform.keyed_digest(f"address:{address}"),
                    func.platform.keyed_digest(None if client is None else f"client:{client}"),
                )
            )
        ).one()
        now = datetime.datetime.now(datetime.UTC)
        counted = (
            select(
                func.count().filter(PublicRequest.address == mine).label("address"),
                func.count().filter(PublicRequest.client == theirs).label("client"),
                func.count().label("deployment"),
                func.min(PublicRequest.created_at).label("first"),
            )
            .select_from(PublicRequest)
            .where(PublicRequest.kind == self._kind, PublicRequest.created_at > func.now() - text("interval '1 hour'"))
        )
        found = (await session.execute(counted)).one()
        for by, limit in self._limits.items():
            if by == "client" and theirs is None:
                continue
            if getattr(found, by) >= limit:
                waited = 0.0 if found.first is None else (now - found.first).total_seconds()
                self._refuse(by, max(1, round(_WINDOW - waited)))
        request = PublicRequest(id=uuid7(), kind=self._kind, address=mine, client=theirs)
        session.add(request)
        return request.id

    def _refuse(self, by: str, seconds: int) -> None:
        _refused.labels(self._kind, by).inc()
        raise TooManyRequestsException(_REFUSALS[by], retry_after=max(1, seconds))
