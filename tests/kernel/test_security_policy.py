"""What is taken as a new password: long enough, not everybody's, and no word of the place."""

from __future__ import annotations

import gzip
import unicodedata
from importlib.resources import files
from typing import Any

import pytest

from tenantry.kernel.errors import ValidationFailedException
from tenantry.kernel.security.common import COMMON_MIN_LENGTH, folded, is_common
from tenantry.kernel.security.policy import check_new_password
from tenantry.kernel.settings import load_settings

ORGANIZATION = ("Globex Corporation", "globex-eu")
PERSON = {"email": "ann.lee@people.example", "name": "Ann-Sophie Müller"}


def check(password: str, *, organization: tuple[str, ...] = ORGANIZATION, **changed: Any) -> str | None:
    """What is said of the password, None where it is taken."""
    settings = load_settings(
        {
            f"TENANTRY_{name.upper()}": str(changed.pop(name))
            for name in ("password_min_length", "password_max_length")
            if name in changed
        }
    )
    try:
        check_new_password(settings, password, organization=organization, **{**PERSON, **changed})
    except ValidationFailedException as refused:
        [error] = refused.errors
        return f"{error.field}: {error.message}"
    return None


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery staple",
        "all lower case and no digit at all",
        "пароль для тёщи",
        "🦊🦔🦉🐢🦎🐙🦑🐞",
        "        eight blanks first",
        "globex is where I work",
        "ann lee drives a truck",
        "k9!Vw2#p",
        "sunshine84721936",
    ],
)
def test_whatever_is_long_enough_is_taken_whatever_it_is_made_of(password: str) -> None:
    assert check(password) is None


def test_the_bounds_count_characters_as_they_are_hashed() -> None:
    assert check("seven77") == "password: Expected at least 8 characters."
    assert check("twelve chars", password_min_length=15) == "password: Expected at least 15 characters."
    # Typed as sixteen code points on one keyboard, and as eight on another.
    decomposed = unicodedata.normalize("NFD", "éèêëàâïö")
    assert len(decomposed) == 16
    assert check(decomposed) is None
    assert check(decomposed[:14]) == "password: Expected at least 8 characters."
    assert check("x y " * 16 + "z", password_max_length=64) == "password: Expected at most 64 characters."
    assert check("".join(map(str, range(370)))[:1024]) is None


@pytest.mark.parametrize(
    "password",
    [
        "ann.lee@people.example",
        "ANN.LEE@PEOPLE.EXAMPLE",
        "annlee99",
        "Ann.Lee!",
        "people.example",
        "people2026!",
        "Ann-Sophie Müller",
        "ann sophie müller",
        "Müller123",
        "müllermüller",
        "globex-eu",
        "Globex Corporation",
        "globexcorporation",
        "Corporation!1",
        "globexglobex",
        "2026globex",
        "Globex2026!",
        "\uff27\uff4c\uff4f\uff42\uff45\uff58\uff11\uff12",
        "tenantry",
        "Tenantry1",
    ],
)
def test_the_words_of_the_person_of_the_organization_and_of_the_service_are_refused(password: str) -> None:
    refused = "password: Expected something other than your own address or name, or the organization's."
    assert check(password) == refused


def test_another_organizations_words_are_a_password_like_any_other() -> None:
    assert check("globex-eu", organization=("Acme", "acme")) is None
    assert check("globex-eu", organization=()) is None


def test_a_name_of_one_letter_does_not_forbid_what_ends_in_digits() -> None:
    assert check("a1749205836", organization=("A", "a"), email="a@b.example", name="A") is None


@pytest.mark.parametrize(
    "password",
    [
        *("password", "PASSWORD", "Password1", "iloveyou", "12345678", "qwertyuiop", "letmein1", "trustno1"),
        # In full-width letters.
        "\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44",
        *("aaaaaaaaaaaaaaaaaaaa", "ababababababab", "passwordpassword", "abc123abc123abc123"),
        *("12345678901234567890", "98765432109876543210", "abcdefghijklmnopqrst", "lkjhgfdsa"),
    ],
)
def test_what_many_people_have_is_refused(password: str) -> None:
    assert check(password) == "password: Expected a password that is not one of the most common ones."


def test_the_field_that_is_named_is_the_one_that_it_came_in() -> None:
    assert str(check("password", field="newPassword")).startswith("newPassword: ")


def test_the_list_is_long_folded_sorted_and_of_passwords_that_could_be_taken() -> None:
    packed = files("tenantry.kernel.security").joinpath("data", "common_passwords.txt.gz").read_bytes()
    listed = gzip.decompress(packed).decode("utf-8").splitlines()
    assert len(listed) > 10_000
    assert listed == sorted(set(listed))
    assert all(folded(each) == each and len(each) >= COMMON_MIN_LENGTH for each in listed)
    assert is_common(listed[0])
    assert not is_common("correct horse battery staple")
    licence = files("tenantry.kernel.security").joinpath("data", "common_passwords.LICENSE.txt").read_text("utf-8")
    assert f"{len(listed):,}" in licence
    assert "MIT License" in licence
