"""The brake on guessing passwords: per account and network, per account, and per client address.

Counted in Redis. While Redis is away it is counted in the tenant's schema instead, a handful of short statements for
each attempt, since each attempt costs a hash as well; an organization that does not exist has no schema, and its
attempts are counted in this process, for as many round trips.

Whether an account exists changes nothing of it: no tally, no answer, no number of round trips.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, cast

import structlog
from redis.exceptions import RedisError
from uuid_utils.compat import uuid7

from tenantry.domain.identity.sessions.delays import Rule, Tally, after_attempt, after_withdrawal, wait_for
from tenantry.domain.identity.sessions.throttle import LoginThrottle
from tenantry.kernel.errors import TooManyRequestsException
from tenantry.tenancy.redis import platform_key, tenant_key
from tenantry.tenancy.scope import EMPTY_SCOPE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from redis.asyncio import Redis

    from tenantry.kernel.http.address import ClientAddress
    from tenantry.tenancy.connection import ScopedConnection
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.database import Database

__all__ = ("Attempt", "LoginGuard", "Subject")

FREE = 3
"""Attempts of an account that may fail before one has to wait."""
EVERYWHERE = 5
"""Times as many failures as of one network lock an account for all networks: guessing from many places."""
MEMORY = 86_400_000
"""Milliseconds for which an account's failures are remembered. Were it the time of the lock, as it used to be, whoever
waits for it had ten guesses every five minutes, and now has one."""

_REMEMBERED = 10_000
"""Tallies of organizations that do not exist, kept in this process while Redis is away."""
_SWEPT = 20
"""Forgotten rows that each attempt counted in the database removes: more than it makes."""

_AWAY = (RedisError, OSError, TimeoutError)

# Of one subject one attempt after the other. The lock is of the transaction; that two organizations might share a
# number of 64 bits costs them a wait of milliseconds.
_LOCK = "SELECT pg_advisory_xact_lock($1)"
_READ = "SELECT field, failures, refused_until, last_at FROM login_attempt WHERE subject = $1 AND field = ANY($2)"
_WRITE = """
INSERT INTO login_attempt (id, subject, field, failures, refused_until, last_at, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, now(), now())
ON CONFLICT (subject, field) DO UPDATE SET failures = excluded.failures, refused_until = excluded.refused_until,
    last_at = excluded.last_at, updated_at = now()
"""
_SWEEP = """
DELETE FROM login_attempt WHERE id IN
    (SELECT id FROM login_attempt WHERE last_at < $1 ORDER BY last_at LIMIT $2 FOR UPDATE SKIP LOCKED)
"""
_WITHDRAW = """
UPDATE login_attempt SET failures = greatest(failures - 1, 0), refused_until = least(refused_until, $3),
       updated_at = now()
 WHERE subject = $1 AND field = ANY($2)
"""
_FORGET = "DELETE FROM login_attempt WHERE subject = $1 AND field = ANY($2)"
_FORGET_ALL = "DELETE FROM login_attempt WHERE subject = $1"
_NOTHING = "SELECT 1"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose attempts are counted: the key in Redis, the digest in the database, and a rule for each of its fields."""

    key: str
    digest: bytes
    rules: Mapping[str, Rule]


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that was let through, and counted as a failure until it succeeds."""

    tenant: TenantContext | None
    account: Subject
    address: Subject | None
    is_durable: bool = field(default=False)
    """Counted in the database, since Redis was away."""


class LoginGuard(LoginThrottle):
    """Lets attempts to log in through, or not yet.

    Order of the calls: `begin`, which counts the attempt or refuses it; then `succeeded`, which forgets it, or
    `withdraw` if it came to no verdict, or nothing if it failed. Where there is no more to an attempt than an account,
    `check` and `succeeded` do.
    """

    def __init__(
        self,
        redis: Redis,
        database: Database,
        *,
        failures: int,
        address_failures: int,
        lock: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`failures` of an account from one network, or `address_failures` of one address, and it is locked for `lock`
        seconds. `clock` gives the Unix time."""
        super().__init__(redis, failures=failures, window=lock)
        self._database = database
        self._clock = clock
        milliseconds = lock * 1000
        self._near = Rule(min(FREE, failures - 1), failures, milliseconds, max(MEMORY, milliseconds))
        everywhere = failures * EVERYWHERE
        self._everywhere = Rule(everywhere, everywhere, milliseconds, max(MEMORY, milliseconds))
        # An office has one address, and people who mistype: no delays, and a short memory.
        self._of_address = Rule(address_failures, address_failures, milliseconds, milliseconds)
        self._unknown: OrderedDict[tuple[bytes, str], Tally] = OrderedDict()
        self._scripts = {name: redis.register_script(_source(name)) for name in ("attempt", "withdraw")}

    async def begin(
        self,
        tenant: TenantContext | None,
        slug: str,
        email: str,
        *,
        address: ClientAddress | None = None,
        known_device: Callable[[], Awaitable[str | None]] | None = None,
    ) -> Attempt:
        """Count an attempt, or refuse it.

        Args:
            tenant: where it exists.
            slug: as it was named.
            email: normalized.
            address: of the client.
            known_device: asked only where the attempt would be refused: the name of the account's device which has
                proved to be one. It has a tally of its own, so that nobody else can lock it out.

        Raises:
            TooManyRequestsException: with the seconds to wait.
        """
        network = address.network if address is not None else None
        host = address.host if address is not None else None
        rules = {f"network:{network or '-'}": self._near, "everywhere": self._everywhere}
        account = self._account(tenant, slug, email, rules)
        attempt, wait = await self._count(tenant, account, self._address(host))
        if wait and known_device is not None and (device := await known_device()) is not None:
            account = self._account(tenant, slug, email, {f"device:{device}": self._near})
            attempt, wait = await self._count(tenant, account, None)
        if wait:
            raise TooManyRequestsException(self._refusal, retry_after=math.ceil(wait / 1000))
        return attempt

    async def check(self, tenant: TenantContext | None, slug: str, email: str) -> None:
        await self.begin(tenant, slug, email)

    async def failed(self, tenant: TenantContext | None, slug: str, email: str) -> None:
        """Nothing: `begin` and `check` have counted it."""

    async def succeeded(self, tenant: TenantContext, slug: str, email: str, *, attempt: Attempt | None = None) -> None:
        """Forget the failures that led to the attempt: whoever knows the password has only mistyped it.

        Without an attempt, all of the account's: it has a new password. Those of an address are not forgotten, or an
        account of one's own would be the way to guess at others'.
        """
        if attempt is None:
            account = self._account(tenant, slug, email, {})
            await self._quietly(self._redis.delete(account.key))
            await self._run_durably(tenant, account, _FORGET_ALL)
            return
        account, fields = attempt.account, list(attempt.account.rules)
        if attempt.is_durable:
            await self._run_durably(tenant, account, _FORGET, fields)
        else:
            await self._quietly(cast("Awaitable[int]", self._redis.hdel(account.key, *fields)))
        if attempt.address is not None:
            await self._take_off(attempt, attempt.address)

    async def withdraw(self, attempt: Attempt) -> None:
        """Forget an attempt that came to no verdict, since something was away or too busy."""
        for subject in (attempt.account, attempt.address):
            if subject is not None:
                await self._take_off(attempt, subject)

    # Where it is counted.

    def _account(self, tenant: TenantContext | None, slug: str, email: str, rules: Mapping[str, Rule]) -> Subject:
        # Digests: keys are listed in places where addresses of people have no business.
        if tenant is not None:
            digest = hashlib.sha256(email.encode()).digest()
            return Subject(tenant_key(tenant.id, "guesses", digest.hex()), digest, rules)
        digest = hashlib.sha256(f"{slug}\0{email}".encode()).digest()
        return Subject(platform_key("guesses", digest.hex()), digest, rules)

    def _address(self, host: str | None) -> Subject | None:
        if host is None:
            return None
        digest = hashlib.sha256(f"address\0{host}".encode()).digest()
        return Subject(platform_key("guesses", digest.hex()), digest, {"address": self._of_address})

    def _now(self) -> int:
        return int(self._clock() * 1000)

    async def _count(
        self, tenant: TenantContext | None, account: Subject, address: Subject | None
    ) -> tuple[Attempt, int]:
        attempt = Attempt(tenant, account, address)
        try:
            # The address first: what it refuses is not counted as the account's.
            wait = await self._count_in_redis(address) if address is not None else 0
            if not wait and (wait := await self._count_in_redis(account)) and address is not None:
                await self._run("withdraw", address, self._now(), *address.rules)
        except _AWAY as error:
            _log.warning("log-ins are counted without Redis", error=repr(error))
        else:
            return attempt, wait
        subjects = [each for each in (address, account) if each is not None]
        durable = Attempt(tenant, account, address, is_durable=True)
        if tenant is None:
            return durable, await self._count_here(subjects)
        return durable, await self._count_durably(tenant, subjects)

    async def _count_in_redis(self, subject: Subject) -> int:
        numbers = [
            value
            for name, rule in subject.rules.items()
            for value in (name, rule.free, rule.limit, rule.lock, rule.memory)
        ]
        return int(await self._run("attempt", subject, self._now(), *numbers))

    async def _run(self, script: str, subject: Subject, *values: Any) -> Any:
        return await self._scripts[script](keys=[subject.key], args=values, client=self._redis)

    async def _count_durably(self, tenant: TenantContext, subjects: Sequence[Subject]) -> int:
        now, waits, counted = self._now(), [0], []
        async with self._database.transaction(tenant.write_scope) as transaction:
            connection: ScopedConnection = transaction.connection
            # Addresses before accounts, in every attempt: no two wait for one another.
            for subject in subjects:
                await connection.fetchval(_LOCK, _number(subject))
                rows = await connection.fetch(_READ, subject.digest, list(subject.rules))
                found = {row["field"]: Tally(row["failures"], row["refused_until"], row["last_at"]) for row in rows}
                for name, rule in subject.rules.items():
                    tally = found.get(name, Tally())
                    waits.append(wait_for(tally, rule, now))
                    counted.append((subject.digest, name, after_attempt(tally, rule, now)))
            if not max(waits):
                for digest, name, tally in counted:
                    await connection.execute(
                        _WRITE, uuid7(), digest, name, tally.failures, tally.refused_until, tally.last_at
                    )
                await connection.execute(_SWEEP, now - self._near.memory, _SWEPT)
        return max(waits)

    async def _count_here(self, subjects: Sequence[Subject]) -> int:
        """For an organization that does not exist, with as many statements as for one that does."""
        now = self._now()
        tallies = [
            ((subject.digest, name), self._unknown.get((subject.digest, name), Tally()), rule)
            for subject in subjects
            for name, rule in subject.rules.items()
        ]
        wait = max(wait_for(tally, rule, now) for _, tally, rule in tallies)
        if not wait:
            for key, tally, rule in tallies:
                self._unknown[key] = after_attempt(tally, rule, now)
                self._unknown.move_to_end(key)
        while len(self._unknown) > _REMEMBERED:
            self._unknown.popitem(last=False)
        async with self._database.transaction(EMPTY_SCOPE) as transaction:
            for _ in range(2 * len(subjects) + (0 if wait else len(tallies) + 1)):
                await transaction.connection.fetchval(_NOTHING)
        return wait

    async def _take_off(self, attempt: Attempt, subject: Subject) -> None:
        now, fields = self._now(), list(subject.rules)
        if not attempt.is_durable:
            await self._quietly(self._run("withdraw", subject, now, *fields))
        elif attempt.tenant is not None:
            await self._run_durably(attempt.tenant, subject, _WITHDRAW, fields, now)
        else:
            for name in fields:
                if (tally := self._unknown.get((subject.digest, name))) is not None:
                    self._unknown[subject.digest, name] = after_withdrawal(tally, now)

    async def _run_durably(self, tenant: TenantContext, subject: Subject, statement: str, *values: Any) -> None:
        async with self._database.transaction(tenant.write_scope) as transaction:
            # A statement comes upon a subject's rows in no order of its own: beside an attempt, which writes them one
            # by one, it was a deadlock every few hundred log-ins.
            await transaction.connection.fetchval(_LOCK, _number(subject))
            await transaction.connection.execute(statement, subject.digest, *values)

    @staticmethod
    async def _quietly(answer: Awaitable[Any]) -> None:
        try:
            await answer
        except _AWAY as error:
            # They are forgotten a day later.
            _log.warning("failed log-ins were not forgotten", error=repr(error))


def _number(subject: Subject) -> int:
    return int.from_bytes(subject.digest[:8], signed=True)


@cache
def _source(name: str) -> str:
    return (files("tenantry.domain.identity.sessions") / f"{name}.lua").read_text("utf-8")
