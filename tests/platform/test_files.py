from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.features import ENTITLEMENTS
from tenantry.platform.tenants.files import FilesError, key_lines, read_folder

DOCUMENT = '''# a comment
title = "x"
text = """
plans = 1
[no.table]
"""
list = [
  1,
  2,
]

[plans.free]
name = "Free"
[plans."two words"]
name = "Two"
inline = { a = 1, b = { c = 2 } }
'''


def test_every_key_is_found_on_its_line() -> None:
    lines = key_lines(DOCUMENT)
    assert lines == {
        ("title",): 2,
        ("text",): 3,
        ("list",): 7,
        ("plans",): 12,
        ("plans", "free"): 12,
        ("plans", "free", "name"): 13,
        ("plans", "two words"): 14,
        ("plans", "two words", "name"): 15,
        ("plans", "two words", "inline"): 16,
        ("plans", "two words", "inline", "a"): 16,
        ("plans", "two words", "inline", "b"): 16,
        ("plans", "two words", "inline", "b", "c"): 16,
    }


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 3), st.integers(-5, 5)), unique_by=lambda row: row[0]
    )
)
def test_blank_lines_and_comments_move_a_key_and_nothing_else(rows: list[tuple[str, int, int]]) -> None:
    text, expected, line = "", {}, 1
    for key, blanks, value in rows:
        text += "# note\n" * blanks + f"{key} = {value}\n"
        expected[(key,)] = line + blanks
        line += blanks + 1
    assert key_lines(text) == expected


def test_what_is_no_toml_is_refused() -> None:
    with pytest.raises(tomllib.TOMLDecodeError):
        key_lines("plan = ")


def test_what_is_missing_is_complained_of_where_it_should_be(tmp_path: Path) -> None:
    (tmp_path / "acme.toml").write_text('name = "Acme"\nplan = "free"\n\n[owner]\nname = "Ann"\n')
    with pytest.raises(FilesError) as refusal:
        read_folder(tmp_path, ENTITLEMENTS)
    assert refusal.value.problems == (f"{tmp_path}/acme.toml:4: owner.email: Required field, but missing",)
