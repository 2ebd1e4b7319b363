from __future__ import annotations

import asyncio
import threading

import pytest

from tenantry.kernel.threads import to_the_end


async def test_it_gives_what_the_function_gives_and_raises_what_it_raises() -> None:
    assert await to_the_end(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await to_the_end(lambda: 1 // 0)


@pytest.mark.parametrize("cancellations", [1, 3])
async def test_whoever_is_cancelled_however_often_waits_for_the_thread(cancellations: int) -> None:
    """A time limit and the end of the process may both cancel it; the file would be closed under the thread's hands."""
    begun, go_on, ended = asyncio.Event(), threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    told = 0

    def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait()
        ended.set()

    def tell() -> None:
        nonlocal told
        told += 1

    task = asyncio.create_task(to_the_end(work, cancel=tell))
    await begun.wait()
    try:
        for _ in range(cancellations):
            task.cancel()
            for _ in range(3):  # turns of the loop, in which a cancellation arrives
                await asyncio.sleep(0)
            assert not task.done()
    finally:
        go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    assert told == 1
