"""The ready ring: which queue's turn it is, decided in Redis, one script a step.

Every tenant has a SAQ queue of its own (`saq:t:<id>:…`, which SAQ's own tools read), and so has the platform. One is
in the ring if and only if something waits in it and fewer of its jobs are at work than its plan allows; the ring is
ordered by virtual time, which a job advances by 1/weight (stride scheduling: Waldspurger and Weihl, 1995). So a queue
with twenty thousand jobs and one with a single job take turns, whoever came first.

Nothing here is counted up and down: how many are at work is the length of SAQ's own list, so no crash leaves a counter
wrong. A claim is written down in the script that makes it, and whatever ends it is refused once it is another's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from tenantry.jobs.patience import answer
from tenantry.tenancy.redis import platform_key, queue_name
from tenantry.tenancy.use import DIRTY, JOBS

if TYPE_CHECKING:
    import datetime
    from collections.abc import Iterable, Mapping

    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

__all__ = ("PLATFORM_QUEUE", "Claim", "Outcome", "Ring", "Share", "tenant_of")

PLATFORM_QUEUE = "platform"
"""The queue of jobs that are no tenant's."""

Outcome = Literal["finish", "dead", "retry", "release"]

_KEYS = ("ready", "clock", "wake", "inflight", "due", "shares", "passes", "paused")
_SCRIPTS = (
    *("abort", "adopt", "claim", "enqueue", "forget", "heal"),
    *("pause", "register", "revive", "schedule", "settle", "update"),
)
_MARK = "-"
"""As in ring.lua."""
_BATCH = 500
"""Queues that one script looks at: a few milliseconds, in which Redis serves nobody else."""
_LIFE = 15
"""Seconds after which a worker that has given no sign is dead, and its jobs are somebody else's.

Three signs may be missed: a loop that is kept busy for a moment is not dead.
"""


@dataclass(frozen=True, slots=True)
class Share:
    """What a queue gets: of the workers' turns by its weight, and at most `cap` of its jobs at work at a time."""

    weight: float = 1.0
    cap: int = 8

    def __post_init__(self) -> None:
        if not (0 < self.weight < math.inf and self.cap > 0):
            raise ValueError(f"a share must be positive and finite: {self}")

    def __str__(self) -> str:
        return f"{self.weight!r} {self.cap}"


@dataclass(frozen=True, slots=True)
class Claim:
    """One job that a worker has taken: its queue, its id in Redis, the claim's own name, and the job as stored."""

    queue: str
    id: str
    name: str
    payload: bytes


def tenant_of(queue: str) -> UUID | None:
    """Whose queue it is; None for the platform's.

    Raises:
        ValueError: it is nobody's.
    """
    if queue == PLATFORM_QUEUE:
        return None
    tenant_id = UUID(queue.removeprefix("t:"))
    if queue_name(tenant_id) != queue:
        raise ValueError(f"not a tenant's queue: {queue!r}")
    return tenant_id


class Ring:
    """The scripts, on one Redis. Every method is one round trip unless it says otherwise.

    All of them raise `redis.exceptions.RedisError` when Redis is away; of none of them half is done then.
    """

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.keys = {name: platform_key("jobs", name) for name in _KEYS} | {"use": JOBS, "dirty": DIRTY}
        self._scripts: dict[str, AsyncScript] = {name: redis.register_script(_source(name)) for name in _SCRIPTS}

    async def _run(self, script: str, *values: Any) -> Any:
        return await self._scripts[script](keys=list(self.keys.values()), args=values)

    async def enqueue(
        self, queue: str, job_id: str, payload: bytes, *, scheduled: float = 0, share: Share | None = None
    ) -> bool:
        """Put a job at the end of its queue, or by until it is due (seconds since 1970); False where one of that id is
        not finished yet. Without a share the queue keeps its own."""
        share_is_new = int(share is not None)
        return bool(await self._run("enqueue", queue, job_id, payload, scheduled, str(share or Share()), share_is_new))

    async def claim(self, worker: str, wanted: int) -> list[Claim]:
        """Take up to `wanted` jobs, one of each queue whose turn it is, in turn."""
        values = await self._run("claim", worker, self._life_key(worker), _LIFE, wanted)
        fields = iter(values)
        return [
            Claim(queue.decode(), job_id.decode(), name.decode(), payload)
            for queue, job_id, name, payload in zip(fields, fields, fields, fields, strict=True)
        ]

    async def settle(
        self,
        claim: Claim,
        outcome: Outcome,
        *,
        payload: bytes = b"",
        status: str = "",
        value: float = 0,
        used_on: datetime.date | None = None,
    ) -> bool:
        """End a claim; False where it had ended already, or is another worker's: then nothing is written.

        A job that is to be aborted neither waits again nor runs again, whatever the outcome: it is aborted.

        Args:
            claim: which.
            outcome: `finish` keeps the job for `value` seconds (0: for good, below: not at all); `dead` keeps it among
                the `value` latest dead ones of its queue; `retry` puts it back, due at `value` (0: now); `release`
                makes it the next again, as if nobody had taken it.
            payload: the job as it is to be stored, with the claim's name in it: the same may then be asked twice, when
                an answer was lost. Not for `release`.
            status: is published to whoever waits for it, unless it is empty.
            value: see `outcome`.
            used_on: the day (UTC) to whose use by the tenant it is added, with `finish`; None: to no day's.
        """
        day = "" if used_on is None else used_on.isoformat()
        return bool(await self._run("settle", claim.queue, claim.id, claim.name, outcome, payload, status, value, day))

    async def update(self, claim: Claim, payload: bytes, status: str) -> bool:
        """Store a job that is at work, unless it is to be aborted; False where the claim has ended."""
        return bool(await self._run("update", claim.queue, claim.id, claim.name, payload, status))

    async def abort(
        self, queue: str, job_id: str, *, aborted: bytes, aborting: bytes, ttl: int
    ) -> Literal["aborted", "aborting", "gone"]:
        """Stop a job: at once where it waits, else by its worker; `gone` where it has ended already.

        Args:
            queue: whose.
            job_id: in Redis.
            aborted: the job as it is to be stored once it has ended.
            aborting: the same, until then.
            ttl: seconds to keep it once it has ended (0: for good, below: not at all).
        """
        answer = await self._run("abort", queue, job_id, aborted, aborting, ttl)
        return answer.decode()  # type: ignore[no-any-return]

    async def revive(self, queue: str, job_id: str, payload: bytes) -> bool:
        """Put a dead job back into its queue; False where it is not among the dead."""
        return bool(await self._run("revive", queue, job_id, payload))

    async def schedule(self, now: float, *, queues: int = 100, jobs: int = 50) -> list[str]:
        """Line up what is due: of so many queues so many jobs, of either those that have waited longest; the ids.

        The others are for the next call.
        """
        return [job_id.decode() for job_id in await self._run("schedule", now, queues, jobs)]

    async def is_whole(self) -> bool:
        """Whether nothing of the ring has been lost since it was healed."""
        return await self.redis.zscore(self.keys["ready"], _MARK) is not None

    async def heal(self) -> None:
        """Put every queue where it belongs, whatever has become of the ring; a round trip for some hundred queues."""
        queues = await self.queues()
        for start in range(0, max(1, len(queues)), _BATCH):
            await self._run("heal", int(start + _BATCH >= len(queues)), *queues[start : start + _BATCH])

    async def register(self, shares: Mapping[str, Share]) -> None:
        """Set what queues get, from now on; a round trip for some hundred queues."""
        texts = [(queue, str(share)) for queue, share in shares.items()]
        for start in range(0, len(texts), _BATCH):
            await self._run("register", *chain.from_iterable(texts[start : start + _BATCH]))

    async def pause(self, queue: str) -> None:
        """Take no more of a queue's jobs; those at work go on."""
        await self._run("pause", queue, 1)

    async def resume(self, queue: str) -> None:
        """The contrary of `pause`."""
        await self._run("pause", queue, 0)

    async def paused(self) -> set[str]:
        """The queues that are paused."""
        return {name.decode() for name in await answer(self.redis.smembers(self.keys["paused"]))}

    async def queues(self) -> list[str]:
        """Every queue that ever had a job, until it is forgotten; several round trips where there are thousands."""
        return [name.decode() async for name, _ in self.redis.hscan_iter(self.keys["shares"], count=1000)]

    async def forget(self, queue: str) -> None:
        """Leave nothing of a queue in the ring. Its own keys are not touched."""
        await self._run("forget", queue)

    async def inflight(self) -> list[Claim]:
        """All claims of all workers, without the jobs."""
        found = []
        for job_id, value in (await answer(self.redis.hgetall(self.keys["inflight"]))).items():
            queue, _, name = value.decode().partition(" ")
            found.append(Claim(queue, job_id.decode(), name, b""))
        return found

    async def claim_on(self, queue: str, job_id: str) -> Claim | None:
        """Who is at a job now."""
        # redis-py declares an answer in text, which it is for clients that decode.
        value: Any = await answer(self.redis.hget(self.keys["inflight"], job_id))
        return None if value is None else Claim(queue, job_id, value.decode().partition(" ")[2], b"")

    async def sign_of_life(self, worker: str) -> None:
        """Say that a worker is alive."""
        await self.redis.set(self._life_key(worker), "1", ex=_LIFE)

    async def adopt(self, worker: str, successor: str) -> int:
        """Make a dead worker's claims another's, who counts as alive from now on; how many there are."""
        return int(await self._run("adopt", worker, successor, self._life_key(successor), _LIFE))

    async def dead(self, workers: Iterable[str]) -> set[str]:
        """Those of the workers that have given no sign of life for too long."""
        names = list(workers)
        if not names:
            return set()
        signs = await self.redis.mget([self._life_key(name) for name in names])
        return {name for name, sign in zip(names, signs, strict=True) if sign is None}

    async def first(self, name: str, seconds: int) -> bool:
        """Whether this process is the first to ask for `name` in so many seconds: what one of many is to do."""
        return bool(await self.redis.set(platform_key("jobs", "turn", name), "1", ex=seconds, nx=True))

    @staticmethod
    def worker_of(claim: Claim) -> str:
        """Who has made a claim."""
        return claim.name.rpartition("/")[0]

    @staticmethod
    def _life_key(worker: str) -> str:
        return platform_key("jobs", "life", worker)


@cache
def _source(name: str) -> str:
    folder = files("tenantry.jobs") / "lua"
    return "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in ("ring", name))
