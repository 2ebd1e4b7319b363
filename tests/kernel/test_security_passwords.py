from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import argon2
import pytest

from tenantry.kernel.security import MAX_PASSWORD_LENGTH, HasherBusy, HasherShareBusy, PasswordHasher, PasswordRefused

PASSWORD = "correct horse battery staple"


@pytest.fixture
def hasher() -> Iterator[PasswordHasher]:
    hasher = PasswordHasher(1, 64, 1, 2)
    yield hasher
    hasher.close()


class Gate:
    """Holds argon2's verification until it is opened, and keeps what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.threads: set[str] = set()
        verify = argon2.PasswordHasher.verify

        def held(hasher: argon2.PasswordHasher, encoded: str, secret: bytes) -> Any:
            self.threads.add(threading.current_thread().name)
            self.entered.release()
            assert self.open.wait(30)
            return verify(hasher, encoded, secret)

        monkeypatch.setattr(argon2.PasswordHasher, "verify", held)

    async def wait_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=30)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The encoded hashes that argon2 was asked to verify."""
    asked: list[str] = []
    verify = argon2.PasswordHasher.verify

    def recorded(hasher: argon2.PasswordHasher, encoded: str, secret: bytes) -> Any:
        asked.append(encoded)
        return verify(hasher, encoded, secret)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", recorded)
    return asked


def test_a_password_verifies_against_its_own_hash_alone(hasher: PasswordHasher) -> None:
    async def main() -> None:
        encoded = await hasher.hash(PASSWORD)
        assert encoded.startswith("$argon2id$v=19$m=64,t=1,p=1$")
        assert PASSWORD not in encoded
        assert await hasher.hash(PASSWORD) != encoded
        assert await hasher.verify(encoded, PASSWORD)
        for other in (PASSWORD + " ", PASSWORD.upper(), PASSWORD + "\0", "", PASSWORD[:-1]):
            assert not await hasher.verify(encoded, other)

    asyncio.run(main())


def test_the_same_characters_typed_on_another_keyboard_are_the_same_password(hasher: PasswordHasher) -> None:
    async def main() -> None:
        encoded = await hasher.hash("pin\u0303ata caf\u00e9")
        assert await hasher.verify(encoded, "pi\u00f1ata cafe\u0301")
        # NFC, not NFKC: what looks different stays different.
        assert not await hasher.verify(await hasher.hash("x\u00b2"), "x2")

    asyncio.run(main())


def test_text_that_cannot_be_a_password_is_refused_when_set_and_wrong_when_tried(
    hasher: PasswordHasher, verified: list[str]
) -> None:
    async def main() -> None:
        longest = "é" * MAX_PASSWORD_LENGTH
        encoded = await hasher.hash(longest)
        assert await hasher.verify(encoded, longest)
        for text in (longest + "é", "\ud800 lone surrogate"):
            with pytest.raises(PasswordRefused):
                await hasher.hash(text)
            assert not await hasher.verify(encoded, text)

    asyncio.run(main())
    assert len(verified) == 3


@pytest.mark.parametrize(
    "encoded",
    [
        None,
        "",
        "plain text",
        "$2b$12$abcdefghijklmnopqrstuv",
        "$argon2id$v=19$m=64,t=1,p=1$",
        # Its digest is no base64 that argon2 would write.
        "$argon2id$v=19$m=64,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$" + "A" * 42 + "B",
        # 4 GiB, and argon2i.
        "$argon2id$v=19$m=4194304,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$" + "A" * 43,
        "$argon2i$v=19$m=64,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$" + "A" * 43,
    ],
)
def test_an_unknown_user_costs_what_a_known_one_costs(
    hasher: PasswordHasher, verified: list[str], encoded: str | None
) -> None:
    assert asyncio.run(hasher.verify(encoded, PASSWORD)) is False
    # The same work: one verification with the parameters of a hash that was made here, salt and digest as long.
    real = asyncio.run(hasher.hash(PASSWORD))
    assert verified[-1] != encoded
    assert argon2.extract_parameters(verified[-1]) == argon2.extract_parameters(real)


def test_running_out_of_memory_is_an_error_and_not_a_wrong_password(
    hasher: PasswordHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starved(hasher: argon2.PasswordHasher, encoded: str, secret: bytes) -> Any:
        raise argon2.exceptions.VerificationError("Memory allocation error")

    async def main() -> None:
        encoded = await hasher.hash(PASSWORD)
        monkeypatch.setattr(argon2.PasswordHasher, "verify", starved)
        with pytest.raises(argon2.exceptions.VerificationError):
            await hasher.verify(encoded, PASSWORD)
        with pytest.raises(argon2.exceptions.VerificationError):
            await hasher.verify(None, PASSWORD)

    asyncio.run(main())


def test_a_hash_made_with_other_parameters_asks_to_be_made_anew(hasher: PasswordHasher) -> None:
    async def main() -> None:
        stronger = PasswordHasher(2, 128, 1, 1)
        try:
            encoded = await hasher.hash(PASSWORD)
            assert not hasher.needs_rehash(encoded)
            assert stronger.needs_rehash(encoded)
            assert stronger.needs_rehash("no hash")
            assert await stronger.verify(encoded, PASSWORD)
        finally:
            stronger.close()

    asyncio.run(main())


def test_hashing_leaves_the_event_loop_free(gate: Gate) -> None:
    async def main() -> None:
        hasher = PasswordHasher(1, 64, 1, 1)
        try:
            task = asyncio.create_task(hasher.verify(None, PASSWORD))
            await gate.wait_entered()
            # The loop runs while argon2 is held.
            assert not task.done()
            gate.open.set()
            assert await task is False
        finally:
            hasher.close()
        assert gate.threads
        assert threading.current_thread().name not in gate.threads

    asyncio.run(main())


def test_a_flood_of_logins_is_turned_away_and_the_rest_is_served(gate: Gate) -> None:
    async def main() -> None:
        hasher = PasswordHasher(1, 64, 1, 1, max_waiting=2)
        try:
            tasks = [asyncio.create_task(hasher.verify(None, PASSWORD)) for _ in range(3)]
            await gate.wait_entered()
            for _ in range(5):
                with pytest.raises(HasherBusy) as caught:
                    await hasher.verify(None, PASSWORD)
                assert caught.value.retry_after >= 1
            gate.open.set()
            assert await asyncio.gather(*tasks) == [False, False, False]
            assert await hasher.verify(None, PASSWORD) is False
        finally:
            hasher.close()

    asyncio.run(main())


def test_a_request_that_gives_up_waiting_frees_its_place_and_one_that_runs_does_not(gate: Gate) -> None:
    async def main() -> None:
        hasher = PasswordHasher(1, 64, 1, 1, max_waiting=1)
        try:
            running = asyncio.create_task(hasher.verify(None, PASSWORD))
            await gate.wait_entered()
            waiting = asyncio.create_task(hasher.verify(None, PASSWORD))
            await asyncio.sleep(0)
            with pytest.raises(HasherBusy):
                await hasher.verify(None, PASSWORD)

            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            with pytest.raises(HasherBusy):
                await hasher.verify(None, PASSWORD)

            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            last = asyncio.create_task(hasher.verify(None, PASSWORD))
            await asyncio.sleep(0)
            assert not last.done()
            gate.open.set()
            assert await last is False
        finally:
            hasher.close()

    asyncio.run(main())


def test_closing_turns_away_whoever_waits_instead_of_cancelling_them(gate: Gate) -> None:
    async def main() -> None:
        hasher = PasswordHasher(1, 64, 1, 1)
        running = asyncio.create_task(hasher.verify(None, PASSWORD))
        await gate.wait_entered()
        waiting = asyncio.create_task(hasher.hash(PASSWORD))
        await asyncio.sleep(0)
        hasher.close()
        hasher.close()
        with pytest.raises(HasherBusy):
            await waiting
        with pytest.raises(HasherBusy):
            await hasher.hash(PASSWORD)
        gate.open.set()
        assert await running is False

    asyncio.run(main())


def test_a_flood_of_log_ins_to_one_organization_keeps_nobody_else_waiting(gate: Gate) -> None:
    """One thread, twenty that wait under one key: another key's is next, and not the twenty-first."""

    async def main() -> None:
        hasher = PasswordHasher(1, 64, 1, 1, max_waiting=64, fair=True)
        order: list[str] = []

        async def log_in(name: str, key: str) -> None:
            await hasher.verify(None, PASSWORD, key=key)
            order.append(name)

        try:
            flood = [asyncio.create_task(log_in("flood", "acme")) for _ in range(20)]
            await gate.wait_entered()
            quiet = asyncio.create_task(log_in("quiet", "globex"))
            await asyncio.sleep(0)
            gate.open.set()
            await asyncio.gather(*flood, quiet)
        finally:
            hasher.close()
        assert order.index("quiet") <= 2

    asyncio.run(main())


def test_one_organization_has_no_more_than_half_of_the_threads_and_of_the_queue(gate: Gate) -> None:
    async def main() -> None:
        hasher = PasswordHasher(1, 64, 1, 2, max_waiting=4, fair=True)
        try:
            tasks = [asyncio.create_task(hasher.verify(None, PASSWORD, key="acme")) for _ in range(3)]
            await gate.wait_entered()
            with pytest.raises(HasherShareBusy):
                await hasher.verify(None, PASSWORD, key="acme")
            # A thread is free for another all the while.
            tasks.append(asyncio.create_task(hasher.verify(None, PASSWORD, key="globex")))
            await gate.wait_entered()
            tasks[2].cancel()
            with pytest.raises(asyncio.CancelledError):
                await tasks.pop(2)
            tasks.append(asyncio.create_task(hasher.verify(None, PASSWORD, key="acme")))
            gate.open.set()
            assert await asyncio.gather(*tasks) == [False] * 4
        finally:
            hasher.close()

    asyncio.run(main())


def test_whoever_waits_for_a_turn_is_told_when_the_service_stops(gate: Gate) -> None:
    async def main() -> None:
        hasher = PasswordHasher(1, 64, 1, 1, max_waiting=8, fair=True)
        running = asyncio.create_task(hasher.verify(None, PASSWORD, key="acme"))
        await gate.wait_entered()
        waiting = asyncio.create_task(hasher.verify(None, PASSWORD, key="globex"))
        await asyncio.sleep(0)
        hasher.close()
        with pytest.raises(HasherBusy, match="stopping"):
            await waiting
        gate.open.set()
        assert await running is False

    asyncio.run(main())
