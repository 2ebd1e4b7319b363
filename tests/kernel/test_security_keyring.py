from __future__ import annotations

import base64
import fcntl
import json
import logging
import multiprocessing
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tenantry.kernel.security import Keyring, KeyringError
from tenantry.kernel.security.keyring import thumbprint
from tests.kernel.security_support import Clock, content

RETAIN = 960


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "keyring.json"


def open_ring(path: Path, clock: Clock) -> Keyring:
    return Keyring.open(path, retain=RETAIN, clock=clock, monotonic=clock.monotonic)


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = content(path)
    change(data)
    path.write_text(json.dumps(data))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_start_makes_one_key_that_only_its_owner_can_read(path: Path, clock: Clock) -> None:
    ring = open_ring(path, clock)
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    (info,) = ring.keys()
    assert (info.kid, info.created_at, info.retires_at) == (ring.signing_key().kid, int(clock.now), None)
    assert not [name for name in os.listdir(path.parent) if name not in {"keyring.json", "keyring.json.lock"}]


def test_a_second_start_reads_the_same_key(path: Path, clock: Clock) -> None:
    assert open_ring(path, clock).signing_key().kid == open_ring(path, clock).signing_key().kid


def test_a_keys_name_is_its_thumbprint() -> None:
    # RFC 8037, appendix A.3.
    x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    assert thumbprint(x) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def start(path: Path, barrier: Any, answers: Any) -> None:
    barrier.wait(30)
    answers.put(Keyring.open(path, retain=RETAIN).signing_key().kid)


def test_processes_that_start_at_once_agree_on_one_key(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(3), context.Queue()
    processes = [context.Process(target=start, args=(path, barrier, answers)) for _ in range(3)]
    for process in processes:
        process.start()
    kids = {answers.get(timeout=60) for _ in processes}
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    answers.close()
    answers.join_thread()
    assert kids == {Keyring.open(path, retain=RETAIN).signing_key().kid}


def test_the_lock_of_another_process_is_waited_for_and_named_when_it_stays(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = open_ring(path, clock)
    monkeypatch.setattr("tenantry.kernel.security.keyfile._LOCK_TIMEOUT", 0.0)
    with open(path.with_name("keyring.json.lock")) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(KeyringError, match="another process holds"):
            ring.rotate()


def test_rotating_signs_with_a_new_key_and_keeps_only_the_public_half_of_the_old_one(path: Path, clock: Clock) -> None:
    ring = open_ring(path, clock)
    old = ring.signing_key()
    secret = content(path)["keys"][0]["jwk"]["d"]
    new = ring.rotate()
    assert new.kid == ring.signing_key().kid != old.kid
    assert secret not in path.read_text()
    assert mode(path) == 0o600
    public = ring.verification_key(old.kid)
    assert public is not None
    public.verify(old.private.sign(b"message"), b"message")
    signing, retired = ring.keys()
    assert (signing.retires_at, retired.retires_at) == (None, int(clock.now) + RETAIN)


def test_a_retired_key_verifies_until_the_last_token_has_expired_and_is_then_dropped(path: Path, clock: Clock) -> None:
    ring = open_ring(path, clock)
    first = ring.signing_key().kid
    ring.rotate()
    clock.advance(RETAIN - 1)
    assert ring.verification_key(first) is not None
    assert first in {key["kid"] for key in ring.jwks()["keys"]}
    clock.advance(1)
    assert ring.verification_key(first) is None
    assert [key["kid"] for key in ring.jwks()["keys"]] == [ring.signing_key().kid]
    ring.rotate()
    assert first not in path.read_text()
    assert len(content(path)["keys"]) == 2


def test_another_process_signs_with_the_new_key_within_a_second(path: Path, clock: Clock) -> None:
    ours, theirs = open_ring(path, clock), open_ring(path, clock)
    new = theirs.rotate().kid
    clock.advance(1)
    assert ours.signing_key().kid == new


def test_an_unknown_key_is_looked_for_at_once_but_not_more_than_once_a_second(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = open_ring(path, clock), open_ring(path, clock)
    clock.advance(1)
    assert ours.verification_key("unknown") is None
    clock.advance(0.5)
    new = theirs.rotate().kid
    assert ours.verification_key(new) is None
    clock.advance(0.5)
    assert ours.verification_key(new) is not None

    newer = theirs.rotate().kid
    clock.advance(0.9)
    ours.signing_key()
    clock.advance(0.15)
    assert ours.verification_key(newer) is not None

    looked: list[object] = []
    real = os.stat

    def counted(*args: Any, **keywords: Any) -> os.stat_result:
        looked.append(args)
        return real(*args, **keywords)

    monkeypatch.setattr("tenantry.kernel.security.keyfile.os.stat", counted)
    clock.advance(1.5)
    for number in range(1000):
        assert ours.verification_key(f"invented {number}") is None
    assert len(looked) <= 2


def test_an_unknown_key_is_found_without_waiting_for_the_next_second(path: Path, clock: Clock) -> None:
    ours, theirs = open_ring(path, clock), open_ring(path, clock)
    clock.advance(1.2)
    ours.signing_key()
    new = theirs.rotate().kid
    clock.advance(0.1)
    assert ours.verification_key(new) is not None


def test_a_damaged_file_leaves_the_last_good_ring_in_force(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    ring = open_ring(path, clock)
    kid, good = ring.signing_key().kid, path.read_bytes()
    path.write_text('{"keys": [')
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            clock.advance(1)
            assert ring.signing_key().kid == kid
    # Said once, not once a second.
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    path.unlink()
    clock.advance(1)
    assert ring.verification_key(kid) is not None
    path.write_bytes(good)
    path.chmod(0o600)
    clock.advance(1)
    ring.signing_key()
    path.write_text("{}")
    with caplog.at_level(logging.ERROR):
        clock.advance(1)
        assert ring.signing_key().kid == kid
    assert len(caplog.records) == 3
    with pytest.raises(KeyringError, match="damaged"):
        ring.rotate()
    assert path.read_text() == "{}"


@pytest.mark.parametrize("bits", [0o604, 0o602, 0o620, 0o666, 0o601])
def test_a_file_that_others_could_read_or_the_group_change_is_refused(path: Path, clock: Clock, bits: int) -> None:
    open_ring(path, clock)
    path.chmod(bits)
    with pytest.raises(KeyringError, match=rf"has mode {bits:04o} .*chmod 600"):
        open_ring(path, clock)


def test_a_mounted_secret_that_its_group_may_read_is_accepted(path: Path, clock: Clock) -> None:
    kid = open_ring(path, clock).signing_key().kid
    path.chmod(0o440)
    assert open_ring(path, clock).signing_key().kid == kid


def test_a_mounted_secret_is_followed_when_its_link_moves(path: Path, clock: Clock, tmp_path: Path) -> None:
    # Kubernetes updates a Secret by moving the link `..data`, the file's own link stays.
    open_ring(tmp_path / "one" / "keyring.json", clock)
    second = open_ring(tmp_path / "two" / "keyring.json", clock)
    mount = tmp_path / "mount"
    mount.mkdir()
    (mount / "..data").symlink_to(tmp_path / "one")
    (mount / "keyring.json").symlink_to("..data/keyring.json")
    ring = open_ring(mount / "keyring.json", clock)
    (mount / "next").symlink_to(tmp_path / "two")
    os.replace(mount / "next", mount / "..data")
    clock.advance(1)
    assert ring.signing_key().kid == second.signing_key().kid


def test_a_missing_ring_is_not_made_when_it_should_be_there(path: Path, clock: Clock) -> None:
    with pytest.raises(KeyringError, match="there is no keyring at"):
        Keyring.open(path, retain=RETAIN, create=False)
    assert not path.parent.exists()


def test_a_place_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyringError, match="cannot be made"):
        open_ring(tmp_path / "file" / "home" / "keyring.json", clock)
    (tmp_path / "folder").mkdir()
    with pytest.raises(KeyringError, match="is not a file"):
        open_ring(tmp_path / "folder", clock)


def test_a_rotation_that_cannot_be_written_changes_nothing(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = open_ring(path, clock)
    kid, before = ring.signing_key().kid, path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tenantry.kernel.security.keyfile.os.fsync", full)
    with pytest.raises(KeyringError, match="No space left"):
        ring.rotate()
    assert path.read_bytes() == before
    assert ring.signing_key().kid == kid
    assert sorted(os.listdir(path.parent)) == ["keyring.json", "keyring.json.lock"]


def set_key(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        data["keys"][0]["jwk"][name] = value

    return change


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "no key": lambda data: data["keys"].clear(),
    "two signing keys": lambda data: data["keys"].append(dict(data["keys"][0])),
    "another name": lambda data: data["keys"][0].update(kid="other"),
    "unknown field": lambda data: data["keys"][0].update(extra=1),
    "retired with its private half": lambda data: data["keys"][0].update(retires_at=9_999_999_999),
    "signing without a private half": lambda data: data["keys"][0]["jwk"].pop("d"),
    "another curve": set_key("crv", "Ed448"),
    "another key type": set_key("kty", "EC"),
    "halves that do not belong together": set_key("d", base64.urlsafe_b64encode(b"x" * 32).decode().rstrip("=")),
    "a short key": set_key("x", "AAAA"),
    "no base64": set_key("x", "é" * 43),
    "no list": lambda data: data.update(keys=1),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_ring_that_is_not_whole_is_refused_without_showing_a_key(path: Path, clock: Clock, damage: str) -> None:
    open_ring(path, clock)
    secret = content(path)["keys"][0]["jwk"]["d"]
    rewrite(path, DAMAGE[damage])
    with pytest.raises(KeyringError, match="is damaged") as caught:
        open_ring(path, clock)
    assert secret not in str(caught.value)


def test_the_published_keys_are_public_and_complete(path: Path, clock: Clock) -> None:
    ring = open_ring(path, clock)
    ring.rotate()
    keys = ring.jwks()["keys"]
    assert len(keys) == 2
    for key in keys:
        assert set(key) == {"kty", "crv", "x", "kid", "use", "alg"}
        assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("OKP", "Ed25519", "sig", "EdDSA")
        assert key["kid"] == thumbprint(key["x"])
        public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "="))
        assert public == ring.verification_key(key["kid"])


def test_a_ring_says_nothing_of_its_keys_in_a_log(path: Path, clock: Clock) -> None:
    ring = open_ring(path, clock)
    assert content(path)["keys"][0]["jwk"]["d"] not in repr(ring) + repr(ring.signing_key()) + repr(ring.keys())
