"""Whose turn it is, in Redis: fairness, caps, and what one script does so that nothing can come in between."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from uuid import UUID

import pytest
from saq import Queue

from tenantry.jobs.patience import answer
from tenantry.jobs.queue import RingQueue
from tenantry.jobs.ring import PLATFORM_QUEUE, Claim, Ring, Share, tenant_of
from tenantry.tenancy.redis import platform_key, queue_name
from tests.jobs.support import job_redis_url, open_ring

ACME, GLOBEX = queue_name(UUID(int=1)), queue_name(UUID(int=2))
WIDE = Share(1.0, 100_000)


@pytest.fixture
async def ring() -> AsyncIterator[Ring]:
    async with open_ring() as opened:
        yield opened


def job_id(queue: str, name: object) -> str:
    return f"saq:job:{queue}:{queue}:{name}"


async def put(ring: Ring, queue: str, names: Iterable[object], share: Share | None = WIDE) -> None:
    for name in names:
        assert await ring.enqueue(queue, job_id(queue, name), b"{}", share=share)


async def flood(ring: Ring, queue: str, count: int) -> None:
    for start in range(0, count, 40):
        await asyncio.gather(*(put(ring, queue, [number]) for number in range(start, start + 40)))


async def take(ring: Ring, wanted: int, worker: str = "one") -> list[Claim]:
    return await ring.claim(worker, wanted)


async def turns(ring: Ring, count: int) -> list[str]:
    """Whose jobs are claimed one by one, each ended at once."""
    taken = []
    for _ in range(count):
        for claim in await take(ring, 1):
            taken.append(claim.queue)
            assert await ring.settle(claim, "finish", value=-1)
    return taken


async def tokens(ring: Ring) -> int:
    return await answer(ring.redis.llen(ring.keys["wake"]))


async def waiting(ring: Ring, queue: str) -> list[str]:
    found = await answer(ring.redis.lrange(f"saq:{queue}:queued", 0, -1))
    return [item.decode().rpartition(":")[2] for item in found]


# Fairness.


async def test_a_neighbours_job_is_taken_within_two_claims_of_a_flood(ring: Ring) -> None:
    await flood(ring, ACME, 2000)
    assert set(await turns(ring, 50)) == {ACME}
    await put(ring, GLOBEX, ["urgent"])
    assert GLOBEX in await turns(ring, 2)


async def test_a_batch_of_claims_is_shared_as_single_ones_are(ring: Ring) -> None:
    await put(ring, ACME, range(30))
    await put(ring, GLOBEX, range(30))
    assert Counter(claim.queue for claim in await take(ring, 20)) == {ACME: 10, GLOBEX: 10}


@pytest.mark.parametrize("weight", [3.0, 0.3])
async def test_turns_are_as_the_weights_within_one_at_any_time(ring: Ring, weight: float) -> None:
    await put(ring, ACME, range(60), Share(1.0, 1000))
    await put(ring, GLOBEX, range(60), Share(weight, 1000))
    counts = Counter[str]()
    for queue in await turns(ring, 60):
        counts[queue] += 1
        assert abs(counts[GLOBEX] / weight - counts[ACME]) <= max(1, 1 / weight) + 1e-9


async def test_who_was_away_does_not_catch_up_on_turns_that_it_had_no_use_for(ring: Ring) -> None:
    await put(ring, ACME, range(100))
    await turns(ring, 50)
    await put(ring, GLOBEX, range(50))
    assert Counter(await turns(ring, 20)) == {ACME: 10, GLOBEX: 10}


async def test_who_comes_back_for_every_job_does_not_get_ahead(ring: Ring) -> None:
    await put(ring, GLOBEX, range(40))
    taken = []
    for number in range(20):
        await put(ring, ACME, [number])
        taken += await turns(ring, 2)
    assert abs(taken.count(ACME) - taken.count(GLOBEX)) <= 1


async def test_of_equals_nobody_has_a_second_turn_before_all_had_one(ring: Ring) -> None:
    names = [queue_name(UUID(int=number)) for number in range(1, 21)]
    for name in names:
        await put(ring, name, range(3))
    assert [sorted(await turns(ring, 20)) for _ in range(3)] == [names] * 3


async def test_the_clock_goes_on_when_its_numbers_have_become_large(ring: Ring) -> None:
    await answer(ring.redis.set(ring.keys["clock"], "1e12"))
    await put(ring, ACME, range(30), Share(100.0, 1000))
    await put(ring, GLOBEX, range(30), Share(100.0, 1000))
    assert Counter(await turns(ring, 20)) == {ACME: 10, GLOBEX: 10}
    assert float((await answer(ring.redis.get(ring.keys["clock"]))) or 0) == pytest.approx(1e12 + 0.09, abs=1e-3)


# Caps.


async def test_no_more_are_at_work_than_the_cap_whoever_asks(ring: Ring) -> None:
    await put(ring, ACME, range(10), Share(1.0, 3))
    claims = [*await take(ring, 5, "one"), *await take(ring, 5, "two")]
    assert len(claims) == 3
    assert await ring.settle(claims[0], "finish", value=-1)
    assert len(await take(ring, 5, "two")) == 1


async def test_a_raised_cap_is_for_those_that_wait_already(ring: Ring) -> None:
    await put(ring, ACME, range(5), Share(1.0, 1))
    assert len(await take(ring, 5)) == 1
    await ring.register({ACME: Share(1.0, 4)})
    assert await tokens(ring) == 1
    assert len(await take(ring, 5)) == 3


async def test_a_cap_raised_by_a_job_for_later_is_for_those_that_wait_already(ring: Ring) -> None:
    await put(ring, ACME, range(5), Share(1.0, 1))
    assert len(await take(ring, 5)) == 1
    later = time.time() + 1000
    assert await ring.enqueue(ACME, job_id(ACME, "later"), b"{}", scheduled=later, share=Share(1.0, 4))
    assert len(await take(ring, 5)) == 3


async def test_a_queue_that_knows_no_share_keeps_its_own(ring: Ring) -> None:
    await ring.register({ACME: Share(2.0, 2)})
    await put(ring, ACME, range(5), share=None)
    assert len(await take(ring, 5)) == 2


@pytest.mark.parametrize(("weight", "cap"), [(0.0, 1), (-1.0, 1), (1.0, 0), (math.inf, 1), (math.nan, 1)])
def test_a_share_that_would_stop_somebody_is_refused(weight: float, cap: int) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        Share(weight, cap)


# Waking.


async def test_one_token_wakes_for_any_number_of_jobs_and_is_put_back_by_who_leaves_some(ring: Ring) -> None:
    await put(ring, ACME, range(3))
    assert await tokens(ring) == 1
    await ring.redis.delete(ring.keys["wake"])
    await take(ring, 2)
    assert await tokens(ring) == 1
    await ring.redis.delete(ring.keys["wake"])
    await take(ring, 2)
    assert await tokens(ring) == 0


async def test_who_takes_the_last_one_leaves_no_token(ring: Ring) -> None:
    await put(ring, ACME, ["only"])
    await ring.redis.delete(ring.keys["wake"])
    assert len(await take(ring, 1)) == 1
    assert await tokens(ring) == 0


async def test_room_under_a_cap_wakes(ring: Ring) -> None:
    await put(ring, ACME, range(2), Share(1.0, 1))
    (claim,) = await take(ring, 5)
    await ring.redis.delete(ring.keys["wake"])
    await ring.settle(claim, "finish")
    assert await tokens(ring) == 1


async def test_a_paused_queue_is_passed_over_until_it_is_resumed(ring: Ring) -> None:
    await put(ring, ACME, range(2))
    await ring.pause(ACME)
    await put(ring, GLOBEX, ["other"])
    assert await turns(ring, 5) == [GLOBEX]
    assert await ring.paused() == {ACME}
    await ring.redis.delete(ring.keys["wake"])
    await ring.resume(ACME)
    assert await tokens(ring) == 1
    assert await turns(ring, 5) == [ACME, ACME]


# Claims.


async def test_a_job_that_is_given_back_is_the_next_again(ring: Ring) -> None:
    await put(ring, ACME, "abc")
    first, second = await take(ring, 2)
    await ring.settle(second, "release")
    await ring.settle(first, "release")
    assert await waiting(ring, ACME) == ["a", "b", "c"]


async def test_a_claim_is_ended_once_and_the_same_answer_is_given_again(ring: Ring) -> None:
    await put(ring, ACME, ["a"])
    (claim,) = await take(ring, 1)
    other = Claim(claim.queue, claim.id, "two/1", b"")
    assert not await ring.settle(other, "finish", payload=b'{"by": "two"}')
    assert await ring.settle(claim, "finish", payload=b'{"by": "one"}')
    # The answer was lost, and redis-py asks again by itself.
    assert await ring.settle(claim, "finish", payload=b'{"by": "one"}')
    assert not await ring.settle(claim, "retry", payload=b'{"again": 1}')
    assert await ring.redis.get(claim.id) == b'{"by": "one"}'
    assert await waiting(ring, ACME) == []


async def test_a_claim_of_before_redis_was_emptied_does_not_end_one_of_after(ring: Ring) -> None:
    await put(ring, ACME, ["a"])
    (before,) = await take(ring, 1)
    await ring.redis.flushdb()
    await put(ring, ACME, ["a"])
    (after,) = await take(ring, 1)
    assert before.id == after.id
    assert not await ring.settle(before, "finish", payload=b'{"by": "before"}')
    assert await ring.settle(after, "finish", payload=b'{"by": "after"}')


async def test_jobs_whose_payload_is_gone_hold_nobody_up(ring: Ring) -> None:
    await put(ring, ACME, range(250))
    await answer(ring.redis.delete(*(job_id(ACME, number) for number in range(250))))
    await put(ring, GLOBEX, ["there"])
    claims: list[Claim] = []
    while await tokens(ring):
        await ring.redis.delete(ring.keys["wake"])
        claims += await take(ring, 1)
    assert [claim.queue for claim in claims] == [GLOBEX]
    assert await answer(ring.redis.exists(f"saq:{ACME}:queued", f"saq:{ACME}:active", f"saq:{ACME}:incomplete")) == 0


async def test_seconds_that_are_not_whole_break_no_script_halfway(ring: Ring) -> None:
    await put(ring, ACME, ["a"])
    (claim,) = await take(ring, 1)
    assert await ring.settle(claim, "finish", payload=b"{}", value=0.25)
    assert await ring.redis.ttl(claim.id) == 1
    assert await ring.inflight() == []


async def test_of_the_dead_the_latest_are_kept(ring: Ring) -> None:
    await put(ring, ACME, range(5))
    claims = await take(ring, 5)
    for claim in claims:
        assert await ring.settle(claim, "dead", payload=b"{}", value=3)
    dead = f"saq:{ACME}:dead"
    assert await ring.redis.zrange(dead, 0, -1) == [claim.id.encode() for claim in claims[2:]]
    assert [await ring.redis.exists(claim.id) for claim in claims] == [0, 0, 1, 1, 1]


async def test_a_job_that_comes_anew_is_among_the_dead_no_more(ring: Ring) -> None:
    await put(ring, ACME, ["a"])
    (claim,) = await take(ring, 1)
    await ring.settle(claim, "dead", payload=b"{}", value=3)
    await put(ring, ACME, ["a"])
    assert await ring.redis.zcard(f"saq:{ACME}:dead") == 0
    assert not await ring.revive(ACME, claim.id, b"{}")
    assert await waiting(ring, ACME) == ["a"]


async def test_a_job_that_waits_or_runs_is_not_taken_in_again(ring: Ring) -> None:
    await put(ring, ACME, ["a"])
    await ring.enqueue(ACME, job_id(ACME, "b"), b"{}", scheduled=time.time() + 100)
    for name in "ab":
        assert not await ring.enqueue(ACME, job_id(ACME, name), b"{}")
    (claim,) = await take(ring, 1)
    # As SAQ's own abort leaves it.
    await ring.redis.zrem(f"saq:{ACME}:incomplete", claim.id)
    assert not await ring.enqueue(ACME, claim.id, b"{}")
    await ring.settle(claim, "finish", payload=b"{}")
    assert await ring.enqueue(ACME, claim.id, b"{}")


async def test_a_successor_has_all_that_a_dead_worker_had_and_the_dead_one_ends_nothing(ring: Ring) -> None:
    await put(ring, ACME, "abc")
    old = await take(ring, 2, "host-dead")
    (others,) = await take(ring, 1, "host-dead-too")
    assert await ring.adopt("host-dead", "heir") == 2
    assert not await ring.settle(old[0], "finish")
    new = {claim.id: claim for claim in await ring.inflight()}
    assert {ring.worker_of(new[claim.id]) for claim in old} == {"heir"}
    assert new[others.id].name == others.name
    assert await ring.dead(["heir", "nobody"]) == {"nobody"}
    assert await ring.settle(new[old[0].id], "finish")


# Time.


@pytest.mark.parametrize("due", [0.5, 1.0, 1000.25])
async def test_what_is_due_is_lined_up_however_long_ago_that_was(ring: Ring, due: float) -> None:
    await ring.enqueue(ACME, job_id(ACME, "a"), b"{}", scheduled=due)
    assert await ring.schedule(due - 0.125) == []
    assert await ring.schedule(due) == [job_id(ACME, "a")]
    assert await ring.schedule(due) == []
    assert await turns(ring, 2) == [ACME]


async def test_what_is_due_of_one_queue_does_not_hold_up_the_others(ring: Ring) -> None:
    for number in range(30):
        await ring.enqueue(ACME, job_id(ACME, f"{number:02}"), b"{}", scheduled=100 + number)
    await ring.enqueue(GLOBEX, job_id(GLOBEX, "a"), b"{}", scheduled=500)
    found = await ring.schedule(1000, jobs=10)
    assert len(found) == 11
    assert job_id(GLOBEX, "a") in found
    rest = [*await ring.schedule(1000, jobs=10), *await ring.schedule(1000, jobs=10)]
    assert await waiting(ring, ACME) == [f"{number:02}" for number in range(30)]
    assert len(rest) == 20


# Loss.


async def test_a_ring_that_was_lost_is_whole_again(ring: Ring) -> None:
    await put(ring, ACME, range(3), Share(1.0, 2))
    await ring.enqueue(GLOBEX, job_id(GLOBEX, "later"), b"{}", scheduled=100)
    await ring.heal()
    assert await ring.is_whole()
    await take(ring, 2)
    lost = ("ready", "passes", "wake", "due", "inflight")
    await answer(ring.redis.delete(*(ring.keys[name] for name in lost)))
    assert not await ring.is_whole()
    await ring.heal()
    assert await ring.is_whole()
    assert await tokens(ring) == 1
    # What was at work for nobody waits again, and is the next.
    assert sorted(await waiting(ring, ACME)) == ["0", "1", "2"]
    assert await ring.schedule(1000) == [job_id(GLOBEX, "later")]
    assert sorted(await turns(ring, 5)) == [ACME, ACME, ACME, GLOBEX]


async def test_an_empty_ring_is_not_a_lost_one(ring: Ring) -> None:
    await ring.heal()
    await put(ring, ACME, ["a"])
    assert await turns(ring, 2) == [ACME]
    assert await ring.is_whole()
    assert await take(ring, 1) == []


async def test_every_one_of_a_thousand_queues_is_healed(ring: Ring) -> None:
    names = [queue_name(UUID(int=number)) for number in range(1, 1202)]
    await ring.register(dict.fromkeys(names, WIDE))
    assert len(await ring.queues()) == 1201
    for name in (names[0], names[-1]):
        await put(ring, name, ["a"])
    await ring.redis.delete(ring.keys["ready"])
    await ring.heal()
    assert sorted(await turns(ring, 3)) == [names[0], names[-1]]


async def test_what_saqs_own_client_puts_into_a_queue_is_found(ring: Ring) -> None:
    await ring.register({ACME: WIDE})
    stock = Queue.from_url(job_redis_url(), name=ACME)
    await stock.enqueue("f", key="by-hand")
    await ring.heal()
    (claim,) = await take(ring, 1)
    job = RingQueue(ring, ACME).claimed(claim)
    await job.finish(job.status.COMPLETE)
    await stock.disconnect()
    assert await ring.inflight() == []


async def test_nothing_is_left_of_a_queue_that_is_forgotten(ring: Ring) -> None:
    await put(ring, ACME, range(3), Share(1.0, 2))
    await ring.enqueue(ACME, job_id(ACME, "later"), b"{}", scheduled=100)
    await put(ring, GLOBEX, ["a"])
    claims = await take(ring, 2)
    await ring.pause(ACME)
    await ring.forget(ACME)
    reading = {"zset": ("ZRANGE", "0", "-1"), "hash": ("HGETALL",), "set": ("SMEMBERS",), "list": ("LRANGE", "0", "-1")}
    for name, key in ring.keys.items():
        kind = (await ring.redis.type(key)).decode()
        if kind in reading:
            verb, *rest = reading[kind]
            assert ACME not in repr(await ring.redis.execute_command(verb, key, *rest)), name  # type: ignore[no-untyped-call]
    (kept,) = [claim for claim in claims if claim.queue == GLOBEX]
    assert await ring.settle(kept, "finish")


def test_a_queues_name_is_a_tenants_or_the_platforms() -> None:
    assert tenant_of(PLATFORM_QUEUE) is None
    assert tenant_of(ACME) == UUID(int=1)
    for name in ("t:", "default", f"t:{UUID(int=10)}".upper(), str(UUID(int=1)), f"t:{UUID(int=1).hex}"):
        with pytest.raises(ValueError):  # noqa: PT011
            tenant_of(name)


async def test_one_of_many_has_the_turn(ring: Ring) -> None:
    assert [await ring.first("sweep", 60), await ring.first("sweep", 60), await ring.first("heal", 60)] == [
        True,
        False,
        True,
    ]
    assert 0 < await ring.redis.ttl(platform_key("jobs", "turn", "sweep")) <= 60
