"""Passwords: argon2id, off the event loop, and never so many at once that the rest of the service starves.

NIST SP 800-63B-4, section 3.1.1.2, asks for Unicode passwords to be brought to Normalization Form C before they are
hashed, and that is what happens here: `é` typed as one code point on one keyboard and as two on another is one
password. (Its third revision asked for NFKC or NFKD; those also fold `²` into `2` and ligatures into letters, which
takes entropy from the people who chose them.) Nothing is trimmed, folded in case or cut off.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import threading
import unicodedata
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import argon2
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from tenantry.kernel.turns import Turns

__all__ = ("MAX_PASSWORD_LENGTH", "HasherBusy", "HasherShareBusy", "PasswordHasher", "PasswordRefused")

T = TypeVar("T")

MAX_PASSWORD_LENGTH = 1024
"""Code points. NIST asks for 64 or more to be allowed; a bound keeps the work that a stranger can ask for small."""

_SALT_LENGTH = 16
_HASH_LENGTH = 32
# What a stored hash may ask for. A hash comes from the database, and with an import from elsewhere: one that names
# 4 GiB of memory would take the process down at the next login.
_MAX_TIME_COST = 64
_MAX_MEMORY_COST = 1_048_576
_MAX_PARALLELISM = 16
_ENCODED = re.compile(
    r"\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,2}),p=(\d{1,2})\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{22,86}"
)


class HasherBusy(Exception):  # noqa: N818
    """More passwords wait to be hashed than is sensible. Nothing was done; try again after `retry_after` seconds."""

    retry_after = 1


class HasherShareBusy(HasherBusy):
    """As many wait under the same key as may; others are served."""


class PasswordRefused(ValueError):  # noqa: N818
    """The text cannot be a password: too long, or not Unicode text (a lone surrogate)."""


class PasswordHasher:
    """Hashes and verifies passwords with argon2id (RFC 9106) in threads of its own.

    Args:
        time_cost: passes over the memory.
        memory_cost: KiB for one hash; at least 8 for each lane.
        parallelism: lanes.
        concurrency: threads, so hashes at once; argon2 releases the GIL while it works.
        max_waiting: how many more may wait for a thread before `HasherBusy` is raised.
        fair: those who wait get a thread by turns of the keys that they come under, and no key has more than half of
            the threads, or of the places to wait; else whoever comes first is first.

    May be used from several event loops; `close` it at shutdown.
    """

    def __init__(
        self,
        time_cost: int,
        memory_cost: int,
        parallelism: int,
        concurrency: int,
        *,
        max_waiting: int = 64,
        fair: bool = False,
    ) -> None:
        self._argon2 = argon2.PasswordHasher(
            time_cost=time_cost,
            memory_cost=memory_cost,
            parallelism=parallelism,
            hash_len=_HASH_LENGTH,
            salt_len=_SALT_LENGTH,
        )
        # No password has this hash: its digest is random and was computed from nothing. Verifying against it takes
        # what verifying a real one takes.
        self._dummy = f"$argon2id$v=19$m={memory_cost},t={time_cost},p={parallelism}$" + "$".join(
            base64.b64encode(os.urandom(length)).decode("ascii").rstrip("=") for length in (_SALT_LENGTH, _HASH_LENGTH)
        )
        self._executor = ThreadPoolExecutor(concurrency, thread_name_prefix="password")
        self._limit = concurrency + max_waiting
        self._fair = fair
        self._share = max(1, concurrency // 2) if fair else concurrency
        self._queue = self._share + (max(1, max_waiting // 2) if fair else self._limit)
        # Reentrant: a future that is cancelled says so in the thread, and within the call, that found it cancelled.
        self._lock = threading.RLock()
        self._turns: Turns[Hashable, tuple[Future[Any], Callable[[], Any]]] = Turns(concurrency)
        self._pending = 0
        self._pending_of: dict[Hashable, int] = {}
        self._waiting: dict[Future[Any], None] = {}
        self._closed = threading.Event()

    async def hash(self, password: str, *, key: Hashable = None) -> str:
        """Return the encoded hash (RFC 9106 parameters and salt included) of a password.

        `key` is on whose account: a tenant's id.

        Raises:
            PasswordRefused: longer than `MAX_PASSWORD_LENGTH`, or not Unicode text.
            HasherBusy: too many are waiting, or the hasher is closed; `HasherShareBusy`: too many of that key.
        """
        secret = _prepare(password)
        if secret is None:
            raise PasswordRefused(f"a password has at most {MAX_PASSWORD_LENGTH} characters, all of them Unicode")
        return await self._run(key, lambda: self._argon2.hash(secret))

    async def verify(self, hash: str | None, password: str, *, key: Hashable = None) -> bool:  # noqa: A002 - the field's own word
        """Whether `password` is the one that `hash` was made of; `key` as for `hash`.

        Without a hash (no such user), with one that is not an argon2id hash, or with text that no password can be,
        it does the same work and returns False, so that the time it takes says nothing about who exists.

        Raises:
            HasherBusy: too many are waiting, or the hasher is closed; `HasherShareBusy`: too many of that key.
        """
        secret = _prepare(password)
        if secret is None or hash is None or not _is_sane(hash):
            return await self._run(key, lambda: self._refuse(secret or b""))
        return await self._run(key, lambda: self._verify(hash, secret))

    def needs_rehash(self, hash: str) -> bool:  # noqa: A002
        """Whether `hash` was made with other parameters than these; then hash anew after a successful login."""
        try:
            return self._argon2.check_needs_rehash(hash)
        except InvalidHashError:
            return True

    def close(self) -> None:
        """Take no more work and give up what waits (`HasherBusy` to whoever waits for it). May be called twice.

        Returns at once; a hash that is being computed ends within its own few tens of milliseconds.
        """
        given_up: list[Future[Any]] = []
        with self._lock:
            self._closed.set()
            given_up = list(self._waiting)
        for future in given_up:
            future.cancel()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _verify(self, encoded: str, secret: bytes) -> bool:
        try:
            return self._argon2.verify(encoded, secret)
        except VerifyMismatchError:
            return False
        except VerificationError:
            # A hash that argon2 cannot decode answers at once; the dummy gives it the time of the others. Were the
            # cause ours (no memory left), the dummy fails as well, and that error is raised.
            return self._refuse(secret)

    def _refuse(self, secret: bytes) -> bool:
        try:
            self._argon2.verify(self._dummy, secret)
        except VerifyMismatchError:
            return False
        return False

    async def _run(self, key: Hashable, work: Callable[[], T]) -> T:
        key = key if self._fair else None
        with self._lock:
            if self._closed.is_set():
                raise HasherBusy("the service is stopping")
            if self._pending >= self._limit:
                raise HasherBusy("too many passwords are waiting to be hashed")
            of_key = self._pending_of.get(key, 0)
            if of_key >= self._queue:
                raise HasherShareBusy("too many passwords are waiting to be hashed")
            future: Future[T] = Future()
            self._pending += 1
            self._pending_of[key] = of_key + 1
            self._waiting[future] = None
            if self._turns.take(key, self._share):
                self._start(key, future, work)
            else:
                self._turns.wait(key, self._share, (future, work))
        # Counted until the thread is done with it, not until the caller is: a cancelled request's hash that already
        # runs still holds its thread. One that has not begun is taken back, and its place is free at once.
        future.add_done_callback(lambda _: self._release(key, future, work))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed.is_set() and future.cancelled() and (task is None or not task.cancelling()):
                raise HasherBusy("the service is stopping") from None
            raise

    def _start(self, key: Hashable, future: Future[Any], work: Callable[[], Any]) -> None:
        """Have a thread do it; of those there is one for each slot."""
        self._executor.submit(self._work, key, future, work)

    def _work(self, key: Hashable, future: Future[Any], work: Callable[[], Any]) -> None:
        try:
            if future.set_running_or_notify_cancel():
                try:
                    result = work()
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
        finally:
            with self._lock:
                self._turns.leave(key)
                if not self._closed.is_set():
                    while (found := self._turns.next()) is not None:
                        self._start(found[0], *found[1])

    def _release(self, key: Hashable, future: Future[Any], work: Callable[[], Any]) -> None:
        with self._lock:
            del self._waiting[future]
            self._turns.withdraw(key, (future, work))
            self._pending -= 1
            left = self._pending_of[key] - 1
            if left:
                self._pending_of[key] = left
            else:
                del self._pending_of[key]


def _prepare(password: str) -> bytes | None:
    """The octets that are hashed: UTF-8 of NFC. None for text that cannot be a password."""
    if len(password) > MAX_PASSWORD_LENGTH:
        return None
    try:
        return unicodedata.normalize("NFC", password).encode("utf-8")
    except UnicodeEncodeError:
        return None


def _is_sane(encoded: str) -> bool:
    match = _ENCODED.fullmatch(encoded)
    if match is None:
        return False
    memory, time, lanes = (int(number) for number in match.groups())
    return 8 * lanes <= memory <= _MAX_MEMORY_COST and 1 <= time <= _MAX_TIME_COST and 1 <= lanes <= _MAX_PARALLELISM
