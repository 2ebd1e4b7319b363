"""How many requests an organization, its users and its API keys may make: one round trip to Redis for each request.

The script (`admit.lua`) holds a request to all of its limits at once, at Redis' clock, counts it, and knows sessions
that have ended. Redis away: the request goes on at once, unlimited, and is counted in the process. Whether a session or
a key is good is the database's to say, in the request's transaction (`tenantry.domain.identity.principal`); Redis may
refuse what the database has refused before, and lets nobody in.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog
from prometheus_client import Counter
from redis.exceptions import ResponseError

from tenantry.kernel.errors import NotAuthenticatedException, TooManyRequestsException
from tenantry.kernel.http.address import client_address
from tenantry.kernel.line import RedisAway, Script
from tenantry.tenancy.counting import UseCounter, script_source
from tenantry.tenancy.redis import tenant_key
from tenantry.tenancy.use import TTL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from ipaddress import IPv4Network, IPv6Network
    from uuid import UUID

    from litestar.types import HTTPScope
    from redis.asyncio import Redis

    from tenantry.kernel.line import Line
    from tenantry.kernel.settings.rates import Rates
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.plan import PlanLimits
    from tenantry.tenancy.request import TenantRequest

__all__ = ("KEY_KNOWN_FOR", "Limit", "RateLimiter")

KEY_KNOWN_FOR = 300
"""Seconds for which an API key that the database has found good counts as one, for the limits alone."""

_LONGEST = 86_400_000_000
"""Microseconds: no limit lets in less than one a day."""
_REMEMBERED = 20_000

_LET_IN, _REFUSED, _ENDED, _STRANGER, _STRANGER_REFUSED = 1, 0, -1, 2, -2

_WHO: Final = {
    "tenant": "The organization has made more requests than its plan allows.",
    "user": "You have made more requests than a user may.",
    "key": "The API key has made more requests than a key may.",
}

_limited = Counter("tenantry_rate_limited", "Requests refused by a rate limit.", ["limit", "plan"])
_unlimited = Counter("tenantry_requests_unlimited", "Requests that no limit was asked for, since Redis was away.")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit under a name that clients see: one request each `interval` microseconds, and `burst` of them at once."""

    name: str
    interval: int
    burst: int

    @classmethod
    def of(cls, name: str, rate: float | None, burst: int | None) -> Limit | None:
        """Of requests a second; None where there is no limit."""
        if rate is None:
            return None
        interval = min(max(1, round(1_000_000 / rate)), _LONGEST) if rate > 0 else _LONGEST
        return cls(name, interval, max(1, math.ceil(rate)) if burst is None else max(1, burst))

    @property
    def policy(self) -> str:
        """Of `RateLimit-Policy`: so many in as many seconds as it takes until all of them are there again."""
        return f'"{self.name}";q={self.burst};w={max(1, math.ceil(self.interval * self.burst / 1_000_000))}'


class _Rules:
    """What holds for one kind of caller of one organization, made once for each plan."""

    __slots__ = ("keys", "names", "numbers", "policy")

    def __init__(self, limits: Sequence[tuple[Limit | None, str]]) -> None:
        found = [(limit, key) for limit, key in limits if limit is not None]
        self.names = tuple(limit.name for limit, _ in found)
        self.keys = tuple(key for _, key in found)
        """Those that end with a colon are to be completed by who is asking."""
        self.numbers = tuple(number for limit, _ in found for number in (limit.interval, limit.burst))
        self.policy = ", ".join(limit.policy for limit, _ in found).encode()


class _TenantRules:
    __slots__ = ("ended", "key", "known", "plan", "session", "strangers", "use")

    def __init__(self, tenant: TenantContext, settings: Rates) -> None:
        self.plan: PlanLimits = tenant.plan
        plan, is_on = tenant.plan, settings.rate_limits

        def limit(name: str, rate: float | None, burst: int | None, otherwise: tuple[float | None, int | None]) -> Any:
            # Rate and burst come from one place: a deployment's burst is none for a plan's rate.
            return Limit.of(name, *((rate, burst) if rate is not None else otherwise)) if is_on else None

        whole = limit("tenant", plan.request_rate, plan.request_burst, (settings.request_rate, settings.request_burst))
        user = limit("user", plan.user_rate, plan.user_burst, (settings.user_rate, settings.user_burst))
        key = limit("key", plan.key_rate, plan.key_burst, (settings.key_rate, settings.key_burst))
        of_tenant = whole, tenant_key(tenant.id, "rate", "tenant")
        self.session = _Rules([of_tenant, (user, tenant_key(tenant.id, "rate", "user", ""))])
        self.key = _Rules([of_tenant, (key, tenant_key(tenant.id, "rate", "key", ""))])
        self.strangers = tenant_key(tenant.id, "rate", "stranger", "")
        self.ended = tenant_key(tenant.id, "ended", "")
        self.known = tenant_key(tenant.id, "key", "")
        self.use = tenant_key(tenant.id, "use", "")


class RateLimiter:
    """Admits requests of organizations, or refuses them. Belongs to one event loop.

    Args:
        redis: says which script it is to know.
        line: on which requests are asked for.
        use: counts them.
        settings: what holds where a plan says nothing.
        trusted: proxies that say where a request comes from.
    """

    def __init__(
        self,
        redis: Redis,
        line: Line,
        use: UseCounter,
        settings: Rates,
        *,
        trusted: Sequence[IPv4Network | IPv6Network] = (),
    ) -> None:
        self._line = line
        self._use = use
        self._settings = settings
        self._trusted = trusted
        self._script = Script(redis, script_source("admit"))
        self._rules: dict[UUID, _TenantRules] = {}
        stranger = Limit.of("key", settings.unknown_key_rate, settings.unknown_key_burst)
        assert stranger is not None  # noqa: S101 - both have a default
        self._stranger = (stranger.interval, stranger.burst)

    async def admit(self, request: TenantRequest, scope: HTTPScope) -> None:
        """Hold a request to its limits, and count it: before it takes a connection to the database.

        Raises:
            TooManyRequestsException: a limit is used up; nothing was taken from any of them.
            NotAuthenticatedException: the session has ended.
        """
        tenant = request.tenant
        if tenant is None:  # pragma: no cover - whoever has a token has one
            raise NotAuthenticatedException
        rules = self._rules.get(tenant.id)
        if rules is None or rules.plan is not tenant.plan:
            rules = self._prepare(tenant)
        claims = request.claims
        held = rules.key if claims is None else rules.session
        if not self._settings.rate_limits or (claims is not None and not held.keys):
            # Nothing to ask: 40 to 130 µs of CPU and a round trip for a number that may as well come a second later.
            self._use.add(tenant.id)
            return
        if claims is not None:
            kind, who, mark = "session", str(claims.sub), f"{rules.ended}{claims.sid}"
            keys, numbers = held.keys, held.numbers
        else:
            who = (request.key_digest or b"").hex()
            kind, mark = "key", f"{rules.known}{who}"
            host = client_address(scope, self._trusted).host or "-"
            keys, numbers = (*held.keys, f"{rules.strangers}{host}"), (*held.numbers, *self._stranger)
        asked = [f"{rules.use}{self._use.today}", mark, *(f"{key}{who}" if key[-1] == ":" else key for key in keys)]
        try:
            verdict, which, wait, *left = await self._line.run(self._script, asked, kind, TTL, *numbers)
        except RedisAway as error:
            _unlimited.inc()
            if not error.was_sent:
                # Otherwise it may have been counted, and nobody is to pay for a request twice.
                self._use.add(tenant.id)
            return
        except ResponseError as error:
            _unlimited.inc()
            _log.error("a request could not be held to its limits", error=repr(error))
            self._use.add(tenant.id)
            return
        if verdict == _ENDED:
            raise NotAuthenticatedException("The session has ended.", invalid_token=True)
        if verdict in (_LET_IN, _REFUSED):
            # To strangers nothing is told of what the organization has left.
            scope["state"]["headers"] = _fields(held, left)
        if verdict in (_REFUSED, _STRANGER_REFUSED):
            name = held.names[which - 1] if verdict == _REFUSED else "key"
            _limited.labels(name, tenant.plan.slug).inc()
            raise TooManyRequestsException(_WHO[name], retry_after=math.ceil(wait / 1000), limit=name)
        request.is_stranger = verdict == _STRANGER

    def settle(self, request: TenantRequest) -> None:
        """Remember what the database has said of the caller, for the requests that follow. Waits for nothing."""
        tenant = request.tenant
        if tenant is None or (rules := self._rules.get(tenant.id)) is None:
            return
        if request.key_digest is not None:
            known = f"{rules.known}{request.key_digest.hex()}"
            if request.is_over:
                if not request.is_stranger:
                    self._line.tell("DEL", known)
            elif request.is_stranger and request.principal is not None:
                self._line.tell("SET", known, "1", "EX", KEY_KNOWN_FOR)
                self._use.add(tenant.id)
        elif request.is_over and request.claims is not None and rules.session.keys:
            # For as long as the token would be good. The mark is made of what the database has said, and not where
            # sessions are ended: it cannot come before the commit, and no way to end one can forget it.
            self._line.tell("SET", f"{rules.ended}{request.claims.sid}", "1", "EXAT", request.claims.exp + 1)

    def _prepare(self, tenant: TenantContext) -> _TenantRules:
        if len(self._rules) >= _REMEMBERED:
            self._rules.clear()
        rules = self._rules[tenant.id] = _TenantRules(tenant, self._settings)
        return rules

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hand over what is counted in the process, while the block lasts."""
        async with self._use.open():
            yield


def _fields(rules: _Rules, left: Sequence[int]) -> list[tuple[bytes, bytes]]:
    """The header fields of the draft; `left` is of each limit what is left, and milliseconds until it is whole."""
    shown = ", ".join(
        f'"{name}";r={left[2 * index]};t={math.ceil(left[2 * index + 1] / 1000)}'
        for index, name in enumerate(rules.names)
    )
    return [(b"ratelimit-policy", rules.policy), (b"ratelimit", shown.encode())] if rules.names else []
