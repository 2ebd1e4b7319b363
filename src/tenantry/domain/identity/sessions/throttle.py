"""A brake on guessing passwords, counted in Redis.

Redis away: no brake, and a warning. Signing in matters more, and each guess still costs a hash.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from tenantry.kernel.errors import TooManyRequestsException
from tenantry.tenancy.redis import platform_key, tenant_key

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from tenantry.tenancy.context import TenantContext

__all__ = ("LoginThrottle",)

_log = structlog.get_logger(__name__)


class LoginThrottle:
    """Counts the failures of one account; past the limit it refuses, until the window that the first began is over.

    An account that does not exist is counted like one that does, so that the brake tells nothing.
    """

    def __init__(self, redis: Redis, *, failures: int, window: int, what: str = "login", refusal: str = "") -> None:
        """`failures` are allowed within `window` seconds.

        `what` is counted, and `refusal` what is said then: the same brake is good for what an account may only be
        asked for so often.
        """
        self._what = what
        self._refusal = refusal or "Too many attempts to log in to this account have failed."
        self._redis = redis
        self._failures = failures
        self._window = window

    def _key(self, tenant: TenantContext | None, slug: str, email: str) -> str:
        # A digest: keys are listed in places where addresses of people have no business.
        if tenant is not None:
            return tenant_key(tenant.id, self._what, hashlib.sha256(email.encode()).hexdigest())
        return platform_key(self._what, hashlib.sha256(f"{slug}\0{email}".encode()).hexdigest())

    async def check(self, tenant: TenantContext | None, slug: str, email: str) -> None:
        """Refuse if too many have failed.

        Raises:
            TooManyRequestsException: with the seconds to wait.
        """
        key = self._key(tenant, slug, email)
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.get(key)
                pipeline.ttl(key)
                count, left = await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as error:
            _log.warning("attempts are not throttled", of=self._what, error=repr(error))
            return
        if count is not None and int(count) >= self._failures:
            raise TooManyRequestsException(self._refusal, retry_after=max(1, int(left)))

    async def failed(self, tenant: TenantContext | None, slug: str, email: str) -> None:
        """Count a failure."""
        key = self._key(tenant, slug, email)
        try:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.incr(key)
                pipeline.expire(key, self._window, nx=True)
                await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as error:
            _log.warning("an attempt was not counted", of=self._what, error=repr(error))

    async def succeeded(self, tenant: TenantContext, slug: str, email: str) -> None:
        """Forget the failures: whoever knows the password has only mistyped it."""
        try:
            await self._redis.delete(self._key(tenant, slug, email))
        except (RedisError, OSError, TimeoutError) as error:
            _log.warning("failed log-ins were not forgotten", error=repr(error))
