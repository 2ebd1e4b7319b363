"""What a new password must be: NIST SP 800-63B-4 §3.1.1.2, which asks for length and forbids rules of composition.

Refused is what a guesser tries first: passwords that many people have, and the words of the place, which are those of
the service, of the organization and of the person.
"""

from __future__ import annotations

import re
import string
import unicodedata
from typing import TYPE_CHECKING

from tenantry.kernel.errors import ValidationFailedException
from tenantry.kernel.security.common import folded, is_common

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tenantry.kernel.settings import Settings

__all__ = ("check_new_password",)

_SERVICE = "tenantry"
_SHORTEST_WORD = 3
"""Characters. What is left of `a1234567` without its digits is the word of an organization called A, and nobody's."""
_SEPARATORS = re.compile(r"[\W_]+")
_RUNS = tuple(
    direction * (1024 // len(row) + 2)
    for row in (string.digits, string.ascii_lowercase, "qwertyuiop", "asdfghjkl", "zxcvbnm")
    for direction in (row, row[::-1])
)
"""What a finger does that runs along the keyboard. The list of common passwords has the short ones."""


def check_new_password(
    settings: Settings,
    password: str,
    *,
    email: str,
    organization: Iterable[str],
    name: str | None = None,
    field: str = "password",
) -> None:
    """Refuse a password that is too short or too long, that many people have, or that is a word of the place.

    Args:
        settings: the bounds of its length, in Unicode code points of NFC, as it is hashed.
        email: the person's address; its parts are words of the place too.
        organization: the words of the organization, its name and its slug; none for an operator.
        name: the person's.
        field: that the password came in.

    Raises:
        ValidationFailedException: naming `field`, and what was expected.
    """
    length = len(unicodedata.normalize("NFC", password))
    if length < settings.password_min_length:
        raise ValidationFailedException.of(field, f"Expected at least {settings.password_min_length} characters.")
    if length > settings.password_max_length:
        raise ValidationFailedException.of(field, f"Expected at most {settings.password_max_length} characters.")
    plain = folded(password)
    if _is_of(
        plain, {*_words_of_email(email), *_words(name or ""), *(w for text in organization for w in _words(text))}
    ):
        raise ValidationFailedException.of(
            field, "Expected something other than your own address or name, or the organization's."
        )
    unit = _unit(plain)
    # A short password does not become a long one by being said again.
    is_short = unit != plain and len(unit) < settings.password_min_length
    if is_short or is_common(plain) or is_common(unit) or _is_run(plain):
        raise ValidationFailedException.of(field, "Expected a password that is not one of the most common ones.")


def _is_of(plain: str, words: set[str]) -> bool:
    """Whether a password is one of the words, or little more: with digits or signs around it, or said twice."""
    if plain in words:
        return True
    bare = _SEPARATORS.sub("", plain)
    core = bare.strip(string.digits)
    forms = {bare, core, _unit(plain), _unit(bare), _unit(core)}
    return any(len(form) >= _SHORTEST_WORD and form in words for form in forms)


def _words(text: str) -> Iterator[str]:
    """A name as it is, in one piece without its separators, and each of its parts."""
    plain = folded(text)
    yield _SERVICE
    yield from (plain, _SEPARATORS.sub("", plain))
    yield from (part for part in _SEPARATORS.split(plain) if len(part) >= _SHORTEST_WORD)


def _words_of_email(email: str) -> Iterator[str]:
    local, _, domain = email.rpartition("@")
    for text in (email, local, domain):
        yield from _words(text)


def _unit(text: str) -> str:
    """What a text is a repetition of: `abc` of `abcabcabc`, and any other text of itself."""
    return text[: (text + text).find(text, 1)] if text else text


def _is_run(plain: str) -> bool:
    return any(plain in run for run in _RUNS)
