"""Jobs: what they are called, what they take, and how often they are tried.

| what you raise            | what happens                                                                      |
|---------------------------|-----------------------------------------------------------------------------------|
| nothing                   | what was written is committed; the result (JSON) is kept for `keep` seconds       |
| `Retry(after=30)`         | rolled back; tried again in so many seconds, if an attempt is left                |
| `Discard("why")`          | rolled back; not tried again, and not dead either: there is nothing to do         |
| any other exception       | rolled back; tried again after at most `backoff` seconds, then twice as many, …   |
| … in the last attempt     | rolled back; dead                                                                 |
| longer than `timeout`     | cancelled and rolled back, as any other exception                                 |
| a result that is not JSON | rolled back; dead at once: another attempt would end alike                        |
| arguments that do not fit | never begun; left to workers of another release for an hour, then dead            |
| the worker is killed      | PostgreSQL rolls back; another worker tries again within half a minute            |
| the database is away      | rolled back; tried again, and the attempt does not count                          |

Dead jobs are kept, to be looked at and run again (`tenantry jobs list --dead`, `tenantry jobs retry`).
"""

from __future__ import annotations

import datetime
import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol, get_type_hints

import msgspec
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.jobs.outbox import Entry, put
from tenantry.kernel.mail import Mailer
from tenantry.kernel.security import Vault
from tenantry.kernel.service import Service
from tenantry.kernel.settings import Settings
from tenantry.tenancy.context import TenantContext

if TYPE_CHECKING:
    from uuid import UUID

__all__ = ("RESOURCES", "Discard", "Hint", "Hopeless", "Job", "JobRun", "Retry", "Transactions", "job")

RESOURCES: tuple[type, ...] = (Settings, Vault, Mailer, Redis)
"""Types of which a process has one, for every job that asks for it: `Runner` is given them."""

Provider = Callable[["JobRun"], Any]
Hint = Callable[["Redis"], Awaitable[Any]]
"""What is said in Redis once a job is committed: that there is something to be read, never the thing itself."""


class Retry(Exception):  # noqa: N818 - it says what is to happen, as the table above
    """Try again, later than the job's own backoff says."""

    def __init__(self, reason: str = "", *, after: float) -> None:
        """`after` is in seconds."""
        super().__init__(reason or f"again in {after:g} s")
        self.after = after


class Discard(Exception):  # noqa: N818
    """There is nothing to do any more: what the job was about is gone, say."""


class Hopeless(Exception):  # noqa: N818
    """No further attempt would end otherwise: the job is dead."""


class Transactions(Protocol):
    """Begins a transaction in the job's scope, which is committed at the end of the block, and rolled back by an error.

    For a job that waits for somebody else: who asks for this, and for no session, holds no connection meanwhile. Its
    effects are then at least once, as everything outside the database is: a worker that is killed has the job begin
    again, after what it had committed.
    """

    def __call__(self) -> AbstractAsyncContextManager[AsyncSession]: ...


class JobRun:
    """One attempt at a job, for a function that asks for it."""

    __slots__ = (
        *("_report", "attempt", "attempts", "hints", "id", "meta", "name", "open", "resources", "session", "tenant"),
    )

    def __init__(
        self,
        *,
        job_id: str,
        name: str,
        attempt: int,
        attempts: int,
        session: AsyncSession | None,
        open: Transactions,  # noqa: A002
        tenant: TenantContext | None,
        meta: dict[str, Any],
        resources: Mapping[type, Any],
        report: Callable[[float], Awaitable[None]],
    ) -> None:
        self.id = job_id
        """The same in every attempt: what receivers of mail and webhooks tell repetitions by."""
        self.name = name
        self.attempt = attempt
        """From 1."""
        self.attempts = attempts
        """How many there are at most."""
        self.session = session
        """In the tenant's scope, or the control plane's; committed after the function, with the job's end.

        None of a job that asks for `Transactions`.
        """
        self.open = open
        self.tenant = tenant
        """None in a job of the platform."""
        self.meta = meta
        """Who asked (`actor`) and in which request (`request_id`)."""
        self.resources = resources
        """By type; see `RESOURCES`."""
        self.hints: list[Hint] = []
        """Each is called with Redis once what was written is committed, and once only: where Redis is away, or the
        worker is killed in between, it is not said at all."""
        self._report = report

    async def progress(self, done: float) -> None:
        """Tell whoever looks how far it is, from 0 to 1; also a sign of life.

        Raises:
            ValueError: it is less or more.
            ClaimLostError: the job is another worker's by now. Do not catch it.
        """
        if not 0 <= done <= 1:
            raise ValueError(f"expected a progress between 0 and 1, got {done}")
        await self._report(done)


class Job:
    """A function that runs later, in its tenant's scope.

    Its parameters are the job's arguments, JSON on their way and checked against their types by msgspec, except those
    whose type says that they are given: `AsyncSession`, `TenantContext`, `JobRun`, `Settings`, `Vault`, `Mailer`,
    `Redis`, and every `Service`; or `Transactions`, in place of a session and of services.
    """

    def __init__(
        self,
        function: Callable[..., Awaitable[Any]],
        *,
        name: str,
        retries: int,
        timeout: int,
        backoff: float,
        keep: int,
        platform: bool,
    ) -> None:
        if not 2 <= retries <= 100:
            # With one attempt a killed worker's job would be lost (SAQ's own default).
            raise ValueError(f"job {name!r}: expected 2 to 100 attempts, got {retries}")
        if not 1 <= timeout <= 86_400:
            raise ValueError(f"job {name!r}: expected a timeout of 1 second to a day, got {timeout}")
        self.function = function
        self.name = name
        self.retries = retries
        self.timeout = timeout
        self.backoff = backoff
        self.keep = keep
        self.platform = platform
        self._given: dict[str, Provider] = {}
        needs_session = False
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
        hints = get_type_hints(function, include_extras=True)
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise TypeError(f"job {name!r}: a job's parameters have names of their own, unlike {parameter}")
            if parameter.name not in hints:
                raise TypeError(f"job {name!r}: expected a type of the parameter {parameter.name!r}")
            hint = hints[parameter.name]
            if (provider := _provider(hint)) is not None:
                if platform and hint is TenantContext:
                    raise TypeError(f"job {name!r}: a job of the platform has no tenant")
                needs_session |= _needs_session(hint)
                self._given[parameter.name] = provider
            elif parameter.default is parameter.empty:
                fields.append((parameter.name, hint))
            else:
                fields.append((parameter.name, hint, parameter.default))
        self.opens_transactions = any(hints[given] is Transactions for given in self._given)
        """Whether it begins its transactions itself, and is given none."""
        if self.opens_transactions and needs_session:
            raise TypeError(f"job {name!r}: expected a session or services, or Transactions, and not both")
        # A default is not sent along: a worker of the release before does not know a parameter that was added.
        self.arguments = msgspec.defstruct(
            f"{name}_arguments", fields, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
        )

    async def enqueue(
        self,
        session: AsyncSession,
        *,
        key: str | None = None,
        at: datetime.datetime | None = None,
        **arguments: Any,
    ) -> UUID:
        """Have it run, if and only if the session's transaction commits; the job's id.

        Args:
            session: in a tenant's scope, whose job it is; for a job of the platform in the control plane's.
            key: while a job of this name with this key waits or runs, that one is meant: nothing is added.
            at: not before; at once by default.
            arguments: of the function, those that are given left out.

        Raises:
            msgspec.ValidationError: they do not fit the function, which is a bug of whoever calls.
        """
        return await put(session, self.entry(key=key, at=at, arguments=arguments), platform=self.platform)

    async def schedule(self, session: AsyncSession, delay: float, *, key: str | None = None, **arguments: Any) -> UUID:
        """As `enqueue`, in so many seconds."""
        at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=delay)
        return await self.enqueue(session, key=key, at=at, **arguments)

    def entry(self, *, key: str | None, at: datetime.datetime | None, arguments: dict[str, Any]) -> Entry:
        """The row of the outbox.

        Raises:
            msgspec.ValidationError: the arguments do not fit.
        """
        plain = msgspec.to_builtins(arguments, str_keys=True)
        # Back and forth: what is accepted now is what the worker will accept.
        checked = msgspec.to_builtins(msgspec.convert(plain, self.arguments))
        return Entry(name=self.name, arguments=checked, key=key, due=at, retries=self.retries, timeout=self.timeout)

    def fits(self, arguments: Mapping[str, Any]) -> bool:
        """Whether it could be run with these."""
        try:
            msgspec.convert(arguments, self.arguments)
        except msgspec.ValidationError:
            return False
        return True

    async def run(self, run: JobRun, arguments: dict[str, Any]) -> Any:
        """Call the function; whoever calls commits.

        Raises:
            Hopeless: the arguments do not fit.
            Exception: whatever the function raises.
        """
        try:
            checked = msgspec.convert(arguments, self.arguments)
        except msgspec.ValidationError as error:
            raise Hopeless(f"the arguments do not fit the function: {error}") from error
        values = {name: getattr(checked, name) for name in self.arguments.__struct_fields__}
        given = {name: provide(run) for name, provide in self._given.items()}
        return await self.function(**values, **given)

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function itself, for tests and for other code: now, here, in whatever transaction its session is."""
        return await self.function(*args, **kwargs)


def job(
    name: str, *, retries: int = 5, timeout: int = 60, backoff: float = 2.0, keep: int = 3600, platform: bool = False
) -> Callable[[Callable[..., Awaitable[Any]]], Job]:
    """Make a typed async function a job; its feature lists it (`Feature.jobs`).

    Args:
        name: for good: jobs that wait have it in them.
        retries: attempts at most, the first included, from 2.
        timeout: seconds that one attempt may take.
        backoff: seconds before the second attempt; twice as long before each one after, at random below that.
        keep: seconds that the result is kept.
        platform: it is no tenant's, and runs in the control plane's scope.

    Example:
        @job("send_email", retries=8, timeout=30)
        async def send_email(users: UserService, user_id: UUID, template: str = "welcome") -> None: ...

        await send_email.enqueue(session, user_id=user.id)

    Raises:
        TypeError, ValueError: the function or the numbers cannot be a job's.
    """

    def decorate(function: Callable[..., Awaitable[Any]]) -> Job:
        return Job(function, name=name, retries=retries, timeout=timeout, backoff=backoff, keep=keep, platform=platform)

    return decorate


def _needs_session(hint: Any) -> bool:
    return hint is AsyncSession or (isinstance(hint, type) and issubclass(hint, Service))


def _provider(hint: Any) -> Provider | None:
    if hint is Transactions:
        return lambda run: run.open
    if hint in RESOURCES:
        return lambda run: run.resources[hint]
    if hint is JobRun:
        return lambda run: run
    if hint is AsyncSession:
        return lambda run: run.session
    if hint is TenantContext:
        return lambda run: run.tenant
    if isinstance(hint, type) and issubclass(hint, Service):
        # A job that asks for services has a session.
        return lambda run: hint(session=run.session)  # type: ignore[arg-type]
    return None
