"""The fields of a resource, as they are given on the command line: `number:str! amount:decimal due:date?`."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

__all__ = ("KINDS", "Field", "FieldsError", "Kind", "parse_fields")

Kind = Literal["str", "text", "int", "decimal", "bool", "date", "datetime", "uuid", "words"]

KINDS: Final = tuple(kind for kind in get_args(Kind) if kind != "words")
"""What can be written after the colon; or words that are separated by `|`."""

_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_WORD = re.compile(r"[a-z][a-z0-9_-]{0,29}")
_LONGEST = 40
"""Characters of a name: that of a constraint holds the table's and the column's, of 63 in all."""
_TAKEN: Final = frozenset(
    {
        # Of every table.
        *("id", "created_at", "updated_at"),
        # Of SQLAlchemy's and Advanced Alchemy's classes.
        *("metadata", "registry", "awaitable_attrs", "to_dict"),
        # Of the modules that the generated code imports.
        *("datetime", "decimal", "uuid"),
    }
)


class FieldsError(ValueError):
    """The fields cannot be read; the text says which, and what was expected."""


@dataclass(frozen=True, slots=True)
class Field:
    """One column of a resource."""

    name: str
    kind: Kind
    words: tuple[str, ...] = ()
    """Which the column takes, of the kind `words`."""
    optional: bool = False
    unique: bool = False


def parse_fields(text: str) -> tuple[Field, ...]:
    """Read `name:type`, separated by blanks or commas; a type may end with `?` (may be left out) or `!` (unique).

    Raises:
        FieldsError: there is none, one is not understood, or two have one name.
    """
    found: dict[str, Field] = {}
    for part in re.split(r"[\s,]+", text.strip()):
        if part:
            field = _parse(part)
            if field.name in found:
                raise FieldsError(f"{field.name!r}: there are two fields of that name")
            found[field.name] = field
    if not found:
        raise FieldsError('expected at least one field, such as "number:str amount:decimal due:date"')
    return tuple(found.values())


def _parse(part: str) -> Field:
    name, colon, kind = part.partition(":")
    _check_name(name)
    if not colon:
        raise FieldsError(f"{part!r}: expected a type after the name, such as {name}:str; there are {', '.join(KINDS)}")
    optional, unique = False, False
    while kind and kind[-1] in "?!":
        optional, unique = optional or kind[-1] == "?", unique or kind[-1] == "!"
        kind = kind[:-1]
    if "|" in kind:
        return Field(name, "words", _words(part, kind), optional, unique=_refuse_unique(part, unique))
    if kind not in KINDS:
        raise FieldsError(
            f"{part!r}: {kind!r} is no type; expected one of {', '.join(KINDS)}, or words such as draft|sent|paid"
        )
    if kind in {"text", "bool"}:
        _refuse_unique(part, unique)
    return Field(name, kind, optional=optional, unique=unique)  # type: ignore[arg-type] # it is among KINDS


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise FieldsError(
            f"{name!r}: expected a name of at most {_LONGEST} lower-case letters, digits and underscores, as due_on is"
        )
    if name in _TAKEN or keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise FieldsError(f"{name!r}: the name is taken, by every resource or by Python itself")


def _words(part: str, kind: str) -> tuple[str, ...]:
    words = tuple(kind.split("|"))
    if len(set(words)) != len(words) or not all(_WORD.fullmatch(word) for word in words):
        raise FieldsError(f"{part!r}: expected different words of lower-case letters, such as draft|sent|paid")
    return words


def _refuse_unique(part: str, unique: bool) -> bool:
    if unique:
        raise FieldsError(f"{part!r}: a column of that type cannot be unique")
    return False
