from __future__ import annotations

import base64
import errno
import json
import logging
import multiprocessing
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tenantry.kernel.security import BrokenSealError, SealError, UnknownSealingKeyError, Vault, VaultError
from tenantry.kernel.security.vault import MAX_SEALABLE, SEAL_OVERHEAD
from tests.kernel.security_support import Clock, content

PURPOSE = "webhook-secret"
OWNER = UUID("0198c7a1-0000-7000-8000-000000000001")
SECRET = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

purposes = st.from_regex(r"[a-z][a-z0-9_.:\-]{0,63}", fullmatch=True)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "vault.json"


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Vault:
    """One for all properties that change nothing in it."""
    return Vault(tmp_path_factory.mktemp("vault") / "vault.json", create=True)


def open_vault(path: Path, clock: Clock, *, create: bool = True) -> Vault:
    return Vault(path, create=create, clock=clock, monotonic=clock.monotonic)


def seal(vault: Vault, plain: bytes = SECRET) -> bytes:
    return vault.seal(plain, purpose=PURPOSE, owner=OWNER)


def unseal(vault: Vault, sealed: bytes) -> bytes:
    return vault.unseal(sealed, purpose=PURPOSE, owner=OWNER)


@given(plain=st.binary(max_size=300), purpose=purposes, owner=st.uuids())
def test_what_was_sealed_is_had_back(vault: Vault, plain: bytes, purpose: str, owner: UUID) -> None:
    sealed = vault.seal(plain, purpose=purpose, owner=owner)
    assert vault.unseal(sealed, purpose=purpose, owner=owner) == plain
    assert len(sealed) == len(plain) + SEAL_OVERHEAD
    assert vault.needs_resealing(sealed) is False


@given(plain=st.binary(max_size=60), data=st.data())
def test_any_flipped_bit_is_refused(vault: Vault, plain: bytes, data: st.DataObject) -> None:
    sealed = bytearray(seal(vault, plain))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    # In the key's name it leads to a key that there is not, anywhere else to a tag that does not match.
    kind = UnknownSealingKeyError if 1 <= bit // 8 <= 8 else BrokenSealError
    with pytest.raises(kind):
        unseal(vault, bytes(sealed))


@given(plain=st.binary(max_size=60), data=st.data())
def test_a_value_that_was_cut_or_lengthened_is_refused(vault: Vault, plain: bytes, data: st.DataObject) -> None:
    sealed = seal(vault, plain)
    end = data.draw(st.integers(0, len(sealed) - 1))
    for other in (sealed[:end], sealed + data.draw(st.binary(min_size=1, max_size=20))):
        with pytest.raises(BrokenSealError):
            unseal(vault, other)


@given(sealed=st.binary(max_size=200))
def test_no_octets_are_a_seal_by_chance(vault: Vault, sealed: bytes) -> None:
    with pytest.raises(SealError):
        unseal(vault, sealed)


@given(purpose=purposes, other=purposes, owner=st.uuids(), stranger=st.uuids())
def test_another_purpose_or_owner_is_refused(
    vault: Vault, purpose: str, other: str, owner: UUID, stranger: UUID
) -> None:
    assume(purpose != other and owner != stranger)
    sealed = vault.seal(SECRET, purpose=purpose, owner=owner)
    for asked, whose in ((other, owner), (purpose, stranger), (other, stranger)):
        with pytest.raises(BrokenSealError):
            vault.unseal(sealed, purpose=asked, owner=whose)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plains=st.lists(st.binary(max_size=50), min_size=1, max_size=5))
def test_rotating_keeps_old_values_readable(
    tmp_path_factory: pytest.TempPathFactory, clock: Clock, plains: list[bytes]
) -> None:
    vault = open_vault(tmp_path_factory.mktemp("rotating") / "vault.json", clock)
    sealed: list[bytes] = []
    for plain in plains:
        vault.rotate()
        assert all(vault.needs_resealing(old) for old in sealed)
        sealed.append(seal(vault, plain))
        assert vault.needs_resealing(sealed[-1]) is False
    assert [unseal(vault, value) for value in sealed] == plains
    assert [unseal(open_vault(vault.path, clock), value) for value in sealed] == plains


def test_the_same_secret_is_sealed_differently_each_time(vault: Vault) -> None:
    assert len({seal(vault) for _ in range(100)}) == 100


def test_the_form_of_a_sealed_value_is_the_documented_one(vault: Vault) -> None:
    sealed = seal(vault)
    (key,) = vault.keys()
    assert sealed[0] == 1
    assert sealed[1:9].hex() == key.key_id
    assert len(sealed) == 1 + 8 + 12 + len(SECRET) + 16


def test_what_is_too_long_or_has_no_proper_purpose_is_refused(vault: Vault) -> None:
    assert unseal(vault, seal(vault, b"x" * MAX_SEALABLE)) == b"x" * MAX_SEALABLE
    with pytest.raises(ValueError, match="at most 65536 octets") as caught:
        seal(vault, b"hunter2" * MAX_SEALABLE)
    assert "hunter2" not in str(caught.value)
    for purpose in ("", "Webhook", "webhook secret", "1", "x" * 65, "webhook\n", "ä"):
        with pytest.raises(ValueError, match="a purpose is made of"):
            vault.seal(SECRET, purpose=purpose, owner=OWNER)
        with pytest.raises(ValueError, match="a purpose is made of"):
            vault.unseal(seal(vault), purpose=purpose, owner=OWNER)


def test_the_first_secret_makes_a_vault_that_only_its_owner_can_read(path: Path, clock: Clock) -> None:
    vault = open_vault(path, clock)
    assert not path.parent.exists()
    seal(vault)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    (key,) = vault.keys()
    assert (key.created_at, key.seals_from, key.seals) == (int(clock.now), int(clock.now), True)
    assert sorted(os.listdir(path.parent)) == ["vault.json", "vault.json.lock"]


def test_a_missing_vault_is_not_made_when_it_should_be_there(path: Path, clock: Clock) -> None:
    vault = open_vault(path, clock, create=False)
    for use in (
        vault.open,
        vault.keys,
        vault.rotate,
        lambda: seal(vault),
        lambda: unseal(vault, b"\x01" * SEAL_OVERHEAD),
        lambda: vault.needs_resealing(b"\x01" * SEAL_OVERHEAD),
    ):
        with pytest.raises(VaultError, match=r"there is no vault at .*TENANTRY_VAULT_FILE .*tenantry keys create"):
            use()
    assert not path.parent.exists()
    # And is used as soon as it is there.
    assert Vault.make(path) is True
    assert Vault.make(path) is False
    assert unseal(vault, seal(vault)) == SECRET


def start(path: Path, barrier: Any, answers: Any) -> None:
    barrier.wait(30)
    answers.put(seal(Vault(path, create=True)))


def test_processes_that_start_at_once_can_open_each_others_secrets(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(3), context.Queue()
    processes = [context.Process(target=start, args=(path, barrier, answers)) for _ in range(3)]
    for process in processes:
        process.start()
    sealed = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    answers.close()
    answers.join_thread()
    assert [unseal(Vault(path), value) for value in sealed] == [SECRET] * 3


def test_another_process_seals_with_the_new_key_within_a_second(path: Path, clock: Clock) -> None:
    ours, theirs = open_vault(path, clock), open_vault(path, clock)
    old = seal(ours)
    new = theirs.rotate()
    clock.advance(1)
    assert seal(ours)[1:9].hex() == new.key_id
    assert ours.needs_resealing(old)


def test_what_another_process_sealed_with_a_new_key_is_opened_at_once(path: Path, clock: Clock) -> None:
    ours, theirs = open_vault(path, clock), open_vault(path, clock)
    ours.open()
    for _ in range(3):
        theirs.rotate()
        assert unseal(ours, seal(theirs)) == SECRET


def test_a_key_that_is_to_seal_later_opens_at_once_and_seals_from_then_on(path: Path, clock: Clock) -> None:
    vault = open_vault(path, clock)
    old = vault.keys()[0].key_id
    new = vault.rotate(delay=600)
    assert (new.seals, new.seals_from) == (False, int(clock.now) + 600)
    sealed = seal(vault)
    assert sealed[1:9].hex() == old
    assert vault.needs_resealing(sealed) is False
    with pytest.raises(ValueError, match="the key that seals"):
        vault.remove(old)
    clock.advance(599)
    assert seal(vault)[1:9].hex() == old
    clock.advance(1)
    assert seal(vault)[1:9].hex() == new.key_id
    assert vault.needs_resealing(sealed) is True
    assert unseal(vault, sealed) == SECRET
    with pytest.raises(ValueError, match="delay"):
        vault.rotate(delay=-1)


def test_a_clock_that_is_behind_does_not_leave_a_vault_without_a_key(path: Path, clock: Clock) -> None:
    vault = open_vault(path, clock)
    vault.open()
    vault.rotate()
    clock.now -= 3600
    assert seal(vault)[1:9].hex() == vault.keys()[-1].key_id
    assert unseal(vault, seal(vault)) == SECRET


def test_a_removed_key_opens_nothing_any_more_and_is_named(path: Path, clock: Clock) -> None:
    ours, theirs = open_vault(path, clock), open_vault(path, clock)
    sealed, old = seal(ours), ours.keys()[0]
    secret = content(path)["keys"][0]["key"]
    with pytest.raises(ValueError, match=f"{old.key_id} is the key that seals; rotate first"):
        ours.remove(old.key_id)
    ours.rotate()
    fresh = seal(ours)
    with pytest.raises(LookupError, match="no sealing key 0000000000000000"):
        ours.remove("0" * 16)
    assert unseal(theirs, sealed) == SECRET

    assert ours.remove(old.key_id).key_id == old.key_id
    assert secret not in path.read_text()
    clock.advance(1)
    for vault in (ours, theirs):
        with pytest.raises(UnknownSealingKeyError, match=f"does not have the sealing key {old.key_id}") as caught:
            unseal(vault, sealed)
        assert caught.value.key_id == old.key_id
        assert vault.needs_resealing(sealed) is True
        assert unseal(vault, fresh) == SECRET


def test_another_deployments_vault_opens_nothing_of_ours(path: Path, clock: Clock, tmp_path: Path) -> None:
    sealed = seal(open_vault(path, clock))
    with pytest.raises(UnknownSealingKeyError):
        unseal(open_vault(tmp_path / "other.json", clock), sealed)


def test_a_damaged_file_leaves_the_last_good_vault_in_force(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    vault = open_vault(path, clock)
    sealed = seal(vault)
    path.write_text('{"keys": [')
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            clock.advance(1)
            assert unseal(vault, sealed) == SECRET
    # Said once, not once a second.
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    with pytest.raises(VaultError, match="damaged"):
        vault.rotate()
    assert path.read_text() == '{"keys": ['
    path.unlink()
    clock.advance(1)
    assert unseal(vault, seal(vault)) == SECRET


@pytest.mark.parametrize("bits", [0o604, 0o602, 0o620, 0o666, 0o601])
def test_a_vault_that_others_could_read_or_the_group_change_is_refused(path: Path, clock: Clock, bits: int) -> None:
    open_vault(path, clock).open()
    path.chmod(bits)
    with pytest.raises(VaultError, match=rf"the vault .* has mode {bits:04o} .*chmod 600"):
        open_vault(path, clock).open()


def test_a_mounted_secret_that_its_group_may_read_is_followed_when_its_link_moves(
    path: Path, clock: Clock, tmp_path: Path
) -> None:
    # Kubernetes updates a Secret by moving the link `..data`, the file's own link stays.
    sealed = seal(open_vault(tmp_path / "two" / "vault.json", clock))
    open_vault(tmp_path / "one" / "vault.json", clock).open()
    for name in ("one", "two"):
        (tmp_path / name / "vault.json").chmod(0o440)
    mount = tmp_path / "mount"
    mount.mkdir()
    (mount / "..data").symlink_to(tmp_path / "one")
    (mount / "vault.json").symlink_to("..data/vault.json")
    vault = open_vault(mount / "vault.json", clock, create=False)
    with pytest.raises(UnknownSealingKeyError):
        unseal(vault, sealed)
    (mount / "next").symlink_to(tmp_path / "two")
    os.replace(mount / "next", mount / "..data")
    assert unseal(vault, sealed) == SECRET


def test_a_place_that_cannot_be_written_is_an_error_that_names_it(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VaultError, match=r"the folder of the vault .* cannot be made"):
        seal(open_vault(tmp_path / "file" / "home" / "vault.json", clock))
    vault = open_vault(tmp_path / "vault.json", clock)
    vault.open()
    before = vault.path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tenantry.kernel.security.keyfile.os.fsync", full)
    for change in (vault.rotate, lambda: Vault.make(tmp_path / "new.json")):
        with pytest.raises(VaultError, match="cannot be written: No space left"):
            change()
    assert vault.path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["file", "new.json.lock", "vault.json", "vault.json.lock"]


def test_a_mounted_secret_without_the_file_says_what_to_do(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def read_only(name: Any, flags: int, *rest: Any, **keywords: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(name, flags, *rest, **keywords)

    monkeypatch.setattr("tenantry.kernel.security.keyfile.os.open", read_only)
    with pytest.raises(
        VaultError, match=r"cannot be written: Read-only file system \(where it is a mounted Secret, make"
    ):
        seal(open_vault(path, clock))


def set_field(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        data["keys"][0][name] = value

    return change


OTHER_KEY = base64.urlsafe_b64encode(b"x" * 32).decode().rstrip("=")
DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "no key": lambda data: data["keys"].clear(),
    "a key twice": lambda data: data["keys"].append(dict(data["keys"][0])),
    "another id": set_field("id", "0" * 16),
    "no id": set_field("id", "é"),
    "another key": set_field("key", OTHER_KEY),
    "a short key": set_field("key", "AAAA"),
    "no base64": set_field("key", "é" * 43),
    "no time": set_field("seals_from", "soon"),
    "unknown field": set_field("extra", 1),
    "no list": lambda data: data.update(keys=1),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_vault_that_is_not_whole_is_refused_without_showing_a_key(path: Path, clock: Clock, damage: str) -> None:
    open_vault(path, clock).open()
    data = content(path)
    secret = data["keys"][0]["key"]
    DAMAGE[damage](data)
    path.write_text(json.dumps(data))
    with pytest.raises(VaultError, match=r"the vault .* is damaged") as caught:
        open_vault(path, clock).open()
    assert secret not in str(caught.value)
    assert OTHER_KEY not in str(caught.value)


def test_neither_keys_nor_secrets_are_in_what_is_logged_raised_or_shown(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    vault = open_vault(path, clock)
    sealed = seal(vault)
    shown = [repr(vault), repr(vault.keys()), repr(vault._file().current())]
    vault.rotate()
    attempts: tuple[Callable[[], bytes], ...] = (
        lambda: vault.unseal(sealed, purpose=PURPOSE, owner=uuid4()),
        lambda: unseal(vault, sealed[:-1]),
        lambda: unseal(vault, b"\x01" + b"\0" * 8 + sealed[9:]),
    )
    for wrong in attempts:
        with pytest.raises(SealError) as caught:
            wrong()
        assert caught.value.__cause__ is None
        shown.append(repr(caught.value))
    vault.remove(vault.keys()[-1].key_id)
    shown += [str(vars(record)) for record in caplog.records]
    assert len(caplog.records) == 3
    keys = [entry["key"] for entry in content(path)["keys"]]
    everything = "\n".join(shown)
    for secret in (SECRET.decode(), SECRET.hex(), sealed.hex(), *keys):
        assert secret not in everything
