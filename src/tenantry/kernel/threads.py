"""Work in threads that is seen through: whatever it holds could not be given back before."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("to_the_end",)

T = TypeVar("T")


async def to_the_end(function: Callable[[], T], *, cancel: Callable[[], None] | None = None) -> T:
    """Run `function` in a thread and return what it does; a cancellation is raised only once it is through.

    Otherwise the thread would go on writing into a file that its owner has closed. `cancel` is called when the task is
    cancelled, so that `function` may end early.
    """
    work = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        if cancel is not None:
            cancel()
        while not work.done():
            # A second cancellation, of a process that is told to end say, frees nobody from waiting either.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        raise
