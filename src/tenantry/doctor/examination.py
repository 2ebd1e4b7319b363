"""Running checks: a few at a time, each for so long, whatever becomes of it."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from redis.exceptions import RedisError

from tenantry import __version__
from tenantry.doctor.findings import Examination, Finding, Result, critical, warning, worst_of
from tenantry.doctor.site import AT_ONCE, Need, Site
from tenantry.jobs.patience import answer
from tenantry.tenancy.database import LOST

__all__ = ("PAGE", "Check", "examine")

PAGE = "docs/doctor.md"

Run = Callable[[Site], Awaitable[list[Finding]]]
Tell = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Check:
    """One of them. `name` is what `--only` takes, and a heading of the page; `seconds` what it may take."""

    name: str
    title: str
    needs: tuple[Need, ...]
    run: Run
    seconds: float = 120.0

    @property
    def page(self) -> str:
        return f"{PAGE}#{self.name}"


async def examine(site: Site, checks: Sequence[Check], tell: Tell = lambda _done, _all: None) -> Examination:
    """What the checks find, in their order. A check that fails or takes too long is a finding of its own."""
    started, begun = datetime.datetime.now(datetime.UTC), time.monotonic()
    turns, done = asyncio.Semaphore(AT_ONCE), 0
    away = await _unreachable(site, {need for check in checks for need in check.needs})
    found: list[Result] = [*away.values()]

    async def work(check: Check) -> Result:
        nonlocal done
        async with turns:
            result = await _result(site, check, set(away))
        done += 1
        tell(done, len(checks))
        return result

    tell(0, len(checks))
    # In a group: whoever presses Ctrl-C waits for no check.
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work(check)) for check in checks]
    found += [task.result() for task in tasks]
    return Examination(
        release=__version__,
        started_at=started,
        seconds=round(time.monotonic() - begun, 3),
        worst=worst_of([finding.severity for result in found for finding in result.findings]),
        reachable=not away,
        checks=found,
    )


async def _result(site: Site, check: Check, away: set[Need]) -> Result:
    missing = [need for need in check.needs if need not in site.urls]
    lost = [need for need in check.needs if need in away]
    if missing or lost:
        reason = "needs " + " and ".join(need.address for need in missing)
        if not missing:
            reason = " and ".join(need.address for need in lost) + " does not answer"
        return _of(check, [], 0.0, skipped=reason)
    begun = time.monotonic()
    try:
        async with asyncio.timeout(check.seconds):
            findings = await check.run(site)
    except TimeoutError:
        findings = [
            warning(
                f"{check.name}.unfinished",
                "The check has not come to its end",
                seen=f"nothing after {check.seconds:g} s",
                expected="an answer in that time",
                remedy="See whether PostgreSQL is overloaded, or look at fewer tenants (--sample).",
            )
        ]
    except Exception as error:
        # Whatever it is, the other checks' findings are worth having, and this one says that it has none.
        findings = [
            warning(
                f"{check.name}.failed",
                "The check could not be made",
                seen=_in_words(error),
                expected="an answer",
                remedy="Where it is a privilege that lacks, see `roles`; otherwise run it again.",
            )
        ]
    return _of(check, findings, time.monotonic() - begun)


def _of(check: Check, findings: list[Finding], seconds: float, *, skipped: str | None = None) -> Result:
    return Result(
        check=check.name,
        title=check.title,
        status="skipped" if skipped is not None else str(worst_of([finding.severity for finding in findings])),
        skipped=skipped,
        seconds=round(seconds, 3),
        page=check.page,
        findings=findings,
    )


def _in_words(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return _in_words(error.exceptions[0])
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


async def _unreachable(site: Site, asked_for: set[Need]) -> dict[Need, Result]:
    """The addresses that lead nowhere, each as the result of a check `reachable`."""
    needs = sorted(asked_for & site.urls.keys())
    asked = [_ask_redis(site) if need is Need.REDIS else _ask_postgres(site, need) for need in needs]
    answers = await asyncio.gather(*asked)
    found: dict[Need, Result] = {}
    for need, reason in zip(needs, answers, strict=True):
        if reason is None:
            continue
        check = Check("reachable", "Servers answer", (need,), _nothing)
        finding = critical(
            f"reachable.{need}",
            f"The server of {need.address} does not answer, or refuses the log-in",
            seen=reason,
            expected="an answer",
            remedy="Start it, or correct the address; the checks that need it were left out.",
        )
        found[need] = _of(check, [finding], 0.0)
    return found


async def _nothing(_: Site) -> list[Finding]:
    return []


async def _ask_postgres(site: Site, need: Need) -> str | None:
    try:
        async with asyncio.timeout(2 * site.settings.database_connect_timeout), site.connect(need):
            # No statement: a pooler may have no server for it, which is for the pooler's own check to say.
            return None
    except (*LOST, ValueError) as error:
        return _in_words(error)


async def _ask_redis(site: Site) -> str | None:
    try:
        await answer(site.redis.ping())
    except (RedisError, OSError, TimeoutError, ValueError) as error:
        return _in_words(error)
    return None
