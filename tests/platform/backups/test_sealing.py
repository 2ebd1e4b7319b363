"""An encrypted file is what was written, or it is refused: no bit, no piece and no end of it can be another."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import IO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry.kernel.security import Vault
from tenantry.platform.backups.sealing import BackupDamagedError, SealedReader, open_bytes, open_sealed
from tests.platform.backups.support import sealed

PIECE = 65_536
HEADER = 48
NAME = "tenants/x/one.backup"
SIZES = st.sampled_from([0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 7])


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Vault:
    path = tmp_path_factory.mktemp("keys") / "backup-keys.json"
    assert Vault.make(path)
    return Vault(path)


def _content(size: int) -> bytes:
    return bytes(range(256)) * (size // 256) + bytes(size % 256)


@settings(deadline=None, max_examples=40)
@given(size=SIZES | st.integers(0, 200_000), step=st.integers(1, 100_000))
def test_what_is_written_in_whatever_pieces_is_read_again(vault: Vault, size: int, step: int) -> None:
    content = _content(size)
    file = sealed(content, vault, name=NAME, step=step)
    assert open_bytes(file, vault, name=NAME) == content
    assert content[:100] not in file or size < 16


@settings(deadline=None, max_examples=60)
@given(size=SIZES, data=st.data())
def test_one_bit_that_is_another_is_noticed_wherever_it_is(vault: Vault, size: int, data: st.DataObject) -> None:
    file = bytearray(sealed(_content(size), vault, name=NAME))
    place = data.draw(st.integers(0, len(file) - 1) | st.integers(0, HEADER - 1))
    file[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(BackupDamagedError):
        open_bytes(bytes(file), vault, name=NAME)


@settings(deadline=None, max_examples=60)
@given(size=SIZES, data=st.data())
def test_a_file_that_is_cut_off_or_goes_on_is_refused_before_anything_of_it_is_read(
    vault: Vault, size: int, data: st.DataObject
) -> None:
    file = sealed(_content(size), vault, name=NAME)
    ends = [HEADER + number * (PIECE + 16) for number in range(size // PIECE + 1)]
    shorter = data.draw(st.sampled_from([end for end in ends if end < len(file)]) | st.integers(0, len(file) - 1))
    with pytest.raises(BackupDamagedError):
        SealedReader(io.BytesIO(file[:shorter]), vault, name=NAME)
    with pytest.raises(BackupDamagedError):
        SealedReader(io.BytesIO(file + data.draw(st.binary(min_size=1, max_size=100))), vault, name=NAME)
    with pytest.raises(BackupDamagedError):
        # One more piece that is whole, and was written under this key.
        SealedReader(io.BytesIO(file + file[HEADER : HEADER + PIECE + 16]), vault, name=NAME)


@settings(deadline=None, max_examples=30)
@given(order=st.permutations(range(4)))
def test_pieces_in_another_order_are_refused(vault: Vault, order: list[int]) -> None:
    file = sealed(_content(4 * PIECE), vault, name=NAME)
    pieces = [file[HEADER + number * (PIECE + 16) :][: PIECE + 16] for number in range(4)]
    moved = file[:HEADER] + b"".join(pieces[number] for number in order)
    if order == [0, 1, 2, 3]:
        assert open_bytes(moved, vault, name=NAME) == _content(4 * PIECE)
    else:
        with pytest.raises(BackupDamagedError, match="damaged"):
            open_bytes(moved, vault, name=NAME)


def test_a_piece_of_another_file_under_the_same_key_is_refused(vault: Vault) -> None:
    one, other = (sealed(_content(3 * PIECE), vault, name=NAME) for _ in range(2))
    mixed = one[: HEADER + PIECE + 16] + other[HEADER + PIECE + 16 :]
    with pytest.raises(BackupDamagedError):
        open_bytes(mixed, vault, name=NAME)


def test_a_file_under_another_name_or_of_another_key_is_refused(vault: Vault, tmp_path: Path) -> None:
    file = sealed(b"rows", vault, name=NAME)
    with pytest.raises(BackupDamagedError, match="damaged, cut off or another's"):
        open_bytes(file, vault, name="tenants/y/one.backup")
    other = tmp_path / "other.json"
    Vault.make(other)
    with pytest.raises(BackupDamagedError, match=r"encrypted with the key [0-9a-f]{16}, which .*other\.json lacks"):
        open_bytes(file, Vault(other), name=NAME)
    with pytest.raises(BackupDamagedError, match="no backup of this form"):
        open_bytes(b"PK\x03\x04" + bytes(100), vault, name=NAME)


def test_old_backups_are_read_after_the_key_was_rotated(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    Vault.make(path)
    vault = Vault(path)
    before = sealed(b"rows", vault, name=NAME)
    new = vault.rotate()
    after = sealed(b"rows", vault, name=NAME)
    assert open_bytes(before, vault, name=NAME) == open_bytes(after, vault, name=NAME) == b"rows"
    assert after[8:16].hex() == new.key_id != before[8:16].hex()


def test_an_archive_is_written_without_seeking_and_read_with_it(vault: Vault, tmp_path: Path) -> None:
    content = _content(400_000)
    path = tmp_path / "backup"

    class Sink:
        """Takes bytes one after the other, and nothing else."""

        def __init__(self) -> None:
            self.held = bytearray()

        def write(self, data: bytes) -> int:
            self.held += data
            return len(data)

        def flush(self) -> None:
            pass

    sink = Sink()
    with zipfile.ZipFile(cast("IO[bytes]", sink), "w") as archive:
        for name in ("a", "b"):
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(content)
    path.write_bytes(sealed(bytes(sink.held), vault, name=NAME, step=1000))
    with open_sealed(path, vault, name=NAME) as file, zipfile.ZipFile(file) as archive:
        assert archive.read("b") == archive.read("a") == content
        assert archive.testzip() is None
